"""Run a candidate and its reference over cases and gather what they showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from samdec_export.errors import SamdecError, ValidationError
from samdec_export.feeds import NamedFeeds, sizes_of
from samdec_export.log import track
from samdec_export.runner import Feeds, Outputs, Runner
from samdec_export.signature import Signature
from samdec_export.validation.compare import CaseResult, Violation, compare_case, measure_tensor
from samdec_export.validation.tolerances import FLOOR_FACTOR, Tolerance

__all__ = ["Floor", "ValidationResult", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The reference's own largest distance to float64 for one output, as a share of the span, and the case with it."""

    relative: float
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """Every case of one validation.

    `tolerance` is that of the precision; `floors`, by output, say where the reference's own rounding allows more than
    its `relative`. `findings` are reasons to fail that belong to no case.
    """

    reference: str
    candidate: str
    cases: tuple[CaseResult, ...]
    tolerance: Tolerance
    floors: Mapping[str, Floor]
    findings: tuple[str, ...] = ()

    @property
    def limits(self) -> dict[str, Tolerance]:
        """What each output may differ by."""
        return _limits(self.tolerance, self.floors)

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

    The reference's own distance to float64 is measured on the first case and on every case that breaks a limit: what
    the reference cannot promise there is no fault of the candidate.

    Args:
        candidate: The engine to judge.
        reference: What is right: eager fp32.
        exact: The reference in float64.
        signature: What the graph takes and returns.
        cases: Inputs; at least one case.
        tolerance: The limits, before the floors are taken into account.
        findings: Reasons to fail that were met before.

    Raises:
        ValidationError: There is no case: nothing would be compared.
    """
    if not cases:
        raise ValidationError("There is no case to compare.", "A validation that compares nothing proves nothing.")
    judge = _Judge(candidate, reference, exact, signature, tolerance)
    results = tuple(judge.run(case) for case in track(cases, f"Validating {candidate.name}"))
    return ValidationResult(
        reference=reference.name,
        candidate=candidate.name,
        cases=results,
        tolerance=tolerance,
        floors=judge.floors,
        findings=findings,
    )


class _Judge:
    """Judges case after case; a floor measured on one holds for those after it."""

    def __init__(
        self, candidate: Runner, reference: Runner, exact: Runner, signature: Signature, tolerance: Tolerance
    ) -> None:
        self.candidate, self.reference, self.exact = candidate, reference, exact
        self.signature, self.tolerance = signature, tolerance
        self.floors: dict[str, Floor] = {}

    def run(self, case: NamedFeeds) -> CaseResult:
        feeds = case.make()
        expected = self.reference.run(feeds)
        if not self.floors:
            self._measure_floors(case.name, feeds, expected)
        try:
            actual = self.candidate.run(feeds)
        except SamdecError as error:
            violation = Violation(output="", metric="run", detail=str(error))
            return CaseResult(case=case.name, outputs=(), violations=(violation,))
        result = self._compare(case.name, feeds, expected, actual)
        if result.passed or not result.outputs:
            return result
        self._measure_floors(case.name, feeds, expected)
        return self._compare(case.name, feeds, expected, actual)

    def _compare(self, name: str, feeds: Feeds, expected: Outputs, actual: Outputs) -> CaseResult:
        sizes = sizes_of(self.signature, feeds)
        shapes = {spec.name: spec.concrete(sizes) for spec in self.signature.outputs}
        limits = _limits(self.tolerance, self.floors)
        return compare_case(name, self.signature.outputs, shapes, expected, actual, limits)

    def _measure_floors(self, name: str, feeds: Feeds, expected: Outputs) -> None:
        truth = self.exact.run(feeds)
        for spec in self.signature.outputs:
            found = measure_tensor(spec, truth[spec.name], expected[spec.name]).relative
            if spec.name not in self.floors or found > self.floors[spec.name].relative:
                self.floors[spec.name] = Floor(relative=found, case=name)


def _limits(tolerance: Tolerance, floors: Mapping[str, Floor]) -> dict[str, Tolerance]:
    return {
        name: replace(tolerance, relative=max(tolerance.relative, FLOOR_FACTOR * floor.relative))
        for name, floor in floors.items()
    }


def _gravity(case: CaseResult) -> tuple[float, float]:
    severity = max((violation.severity for violation in case.violations), default=0.0)
    return severity, max((output.tensor.relative for output in case.outputs), default=0.0)
