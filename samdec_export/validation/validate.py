"""Run a candidate and its reference over cases and gather what they showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from samdec_export.errors import SamdecError, ValidationError
from samdec_export.feeds import NamedFeeds, sizes_of
from samdec_export.log import track
from samdec_export.runner import Feeds, Runner
from samdec_export.signature import Signature, TensorSpec
from samdec_export.validation.compare import CaseResult, Violation, compare_case, measure_tensor
from samdec_export.validation.tolerances import FLOOR_FACTOR, Tolerance

__all__ = ["ValidationResult", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """Every case of one validation.

    `floor` is the reference's own largest distance to float64, as a share of the span, measured on `floor_case`;
    `tolerance` is what was applied, with the floor taken into account. `findings` are reasons to fail that belong to
    no case.
    """

    reference: str
    candidate: str
    cases: tuple[CaseResult, ...]
    tolerance: Tolerance
    floor: float
    floor_case: str
    findings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Something was compared, and nothing is out of its limits."""
        return bool(self.cases) and not self.findings and all(case.passed for case in self.cases)

    @property
    def worst(self) -> CaseResult | None:
        """The failed case with the gravest violation, or else the one with the largest relative error."""
        return max(self.cases, key=_gravity, default=None)


def validate(
    candidate: Runner,
    reference: Runner,
    exact: Runner,
    signature: Signature,
    cases: Sequence[NamedFeeds],
    tolerance: Tolerance,
    findings: tuple[str, ...] = (),
) -> ValidationResult:
    """Compare `candidate` with `reference` on every case.

    Args:
        candidate: The engine to judge.
        reference: What is right: eager fp32.
        exact: The reference in float64, run on the first case; it bounds what the reference can promise.
        signature: What the graph takes and returns.
        cases: Inputs; at least one case.
        tolerance: The limits, before the floor is taken into account.
        findings: Reasons to fail that were met before.

    Raises:
        ValidationError: There is no case: nothing would be compared.
    """
    if not cases:
        raise ValidationError("There is no case to compare.", "A validation that compares nothing proves nothing.")
    floor = _distance(reference, exact, signature.outputs, cases[0].make())
    applied = replace(tolerance, relative=max(tolerance.relative, FLOOR_FACTOR * floor))
    return ValidationResult(
        reference=reference.name,
        candidate=candidate.name,
        cases=tuple(
            _run_case(case, candidate, reference, signature, applied)
            for case in track(cases, f"Validating {candidate.name}")
        ),
        tolerance=applied,
        floor=floor,
        floor_case=cases[0].name,
        findings=findings,
    )


def _run_case(
    case: NamedFeeds, candidate: Runner, reference: Runner, signature: Signature, tolerance: Tolerance
) -> CaseResult:
    feeds = case.make()
    expected = reference.run(feeds)
    sizes = sizes_of(signature, feeds)
    try:
        actual = candidate.run(feeds)
    except SamdecError as error:
        violation = Violation(output="", metric="run", detail=str(error))
        return CaseResult(case=case.name, outputs=(), violations=(violation,))
    shapes = {spec.name: spec.concrete(sizes) for spec in signature.outputs}
    return compare_case(case.name, signature.outputs, shapes, expected, actual, tolerance)


def _distance(reference: Runner, exact: Runner, specs: tuple[TensorSpec, ...], feeds: Feeds) -> float:
    """The largest relative error of any output of `reference` against `exact`."""
    rounded, truth = reference.run(feeds), exact.run(feeds)
    return max(measure_tensor(spec, truth[spec.name], rounded[spec.name]).relative for spec in specs)


def _gravity(case: CaseResult) -> tuple[float, float]:
    severity = max((violation.severity for violation in case.violations), default=0.0)
    return severity, max((output.tensor.relative for output in case.outputs), default=0.0)
