"""Run a candidate and its reference over cases and gather what they showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from samdec_export.core.errors import SamdecError, ValidationError
from samdec_export.core.feeds import NamedFeeds, sizes_of
from samdec_export.core.log import track
from samdec_export.core.runner import Feeds, Outputs, Runner
from samdec_export.core.signature import Signature
from samdec_export.parity.compare import CaseResult, Violation, compare_case, measure_tensor
from samdec_export.parity.evidence import Evidence
from samdec_export.parity.tolerances import FLOOR_FACTOR, Tolerance

__all__ = ["Comparison", "Floor", "ValidationResult", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The reference's own largest distance to float64 for one output, as a share of the span, and the case with it."""

    relative: float
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """Every case of one validation.

    `tolerance` is that of the precision; `floors`, by output, say where the reference's own rounding allows more than
    its `relative`, and `limits` what each output may differ by after that. `findings` are reasons to fail that belong
    to no case. `evidence` is what was gathered, if it was asked for.
    """

    reference: str
    candidate: str
    cases: tuple[CaseResult, ...]
    tolerance: Tolerance
    floors: Mapping[str, Floor]
    limits: Mapping[str, Tolerance]
    findings: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @property
    def passed(self) -> bool:
        """Something was compared, and nothing is out of its limits."""
        return bool(self.cases) and not self.findings and all(case.passed for case in self.cases)

    @property
    def worst(self) -> CaseResult | None:
        """The failed case with the gravest violation, or else the one with the largest relative error."""
        return max(self.cases, key=_gravity, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Who is compared with whom.

    Args:
        candidate: The engine to judge.
        reference: What is right.
        exact: The reference in float64, if its own rounding is to be counted.
        tolerance: The limits, before the floors are taken into account.
        known: In place of `exact`: the reference's own distance to float64 as it was measured before, by case and
            output, as a share of the span.
        evidence: What gathers how errors are spread and which masks are worst; None not to.
    """

    candidate: Runner
    reference: Runner
    exact: Runner | None
    tolerance: Tolerance
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    evidence: Evidence | None = None


def validate(
    comparisons: Sequence[Comparison],
    signature: Signature,
    cases: Sequence[NamedFeeds],
    findings: tuple[str, ...] = (),
) -> tuple[ValidationResult, ...]:
    """Make every comparison on every case; a runner that takes part in several runs each case once.

    The reference's own distance to float64 is measured on the first case and on every case that breaks a limit: what
    the reference cannot promise there is no fault of the candidate.

    Args:
        comparisons: Who is compared with whom.
        signature: What the graph takes and returns.
        cases: Inputs; at least one case.
        findings: Reasons to fail that were met before; they are the first comparison's.

    Returns:
        A result for each comparison.

    Raises:
        ValidationError: There is no case: nothing would be compared.
    """
    if not cases:
        raise ValidationError("There is no case to compare.", "A validation that compares nothing proves nothing.")
    judges = [_Judge(comparison, signature) for comparison in comparisons]
    for case in track(cases, f"Validating {comparisons[0].candidate.name}"):
        runs = _Runs(case.make())
        for judge in judges:
            judge.run(case.name, runs)
    return tuple(judge.result(findings if number == 0 else ()) for number, judge in enumerate(judges))


class _Runs:
    """Outputs of one case, by runner: computed when they are first asked for."""

    def __init__(self, feeds: Feeds) -> None:
        self.feeds = feeds
        self._outputs: dict[int, Outputs] = {}

    def of(self, runner: Runner) -> Outputs:
        if id(runner) not in self._outputs:
            self._outputs[id(runner)] = runner.run(self.feeds)
        return self._outputs[id(runner)]


class _Judge:
    """Judges case after case; a floor measured on one holds for those after it."""

    def __init__(self, comparison: Comparison, signature: Signature) -> None:
        self.comparison, self.signature = comparison, signature
        self.floors: dict[str, Floor] = {}
        self.cases: list[CaseResult] = []

    def run(self, name: str, runs: _Runs) -> None:
        if not self.floors:
            self._measure_floors(name, runs)
        try:
            actual = runs.of(self.comparison.candidate)
        except SamdecError as error:
            violation = Violation(output="", metric="run", detail=str(error))
            self.cases.append(CaseResult(case=name, outputs=(), violations=(violation,)))
            return
        result = self._compare(name, runs, actual)
        if not result.passed and result.outputs and (self.comparison.exact or self.comparison.known):
            self._measure_floors(name, runs)
            result = self._compare(name, runs, actual)
        self.cases.append(result)
        if self.comparison.evidence and result.outputs:
            limits = self._limits()
            margins = {output.name: limits[output.name].margin * output.tensor.span for output in result.outputs}
            expected = runs.of(self.comparison.reference)
            self.comparison.evidence.add(name, self.signature.outputs, expected, actual, margins)

    def result(self, findings: tuple[str, ...]) -> ValidationResult:
        return ValidationResult(
            reference=self.comparison.reference.name,
            candidate=self.comparison.candidate.name,
            cases=tuple(self.cases),
            tolerance=self.comparison.tolerance,
            floors=self.floors,
            limits=self._limits(),
            findings=findings,
            evidence=self.comparison.evidence,
        )

    def _compare(self, name: str, runs: _Runs, actual: Outputs) -> CaseResult:
        sizes = sizes_of(self.signature, runs.feeds)
        shapes = {spec.name: spec.concrete(sizes) for spec in self.signature.outputs}
        expected = runs.of(self.comparison.reference)
        return compare_case(name, self.signature.outputs, shapes, expected, actual, self._limits())

    def _limits(self) -> dict[str, Tolerance]:
        tolerance = self.comparison.tolerance
        return {
            spec.name: tolerance.of(spec.content).above(FLOOR_FACTOR * self.floors[spec.name].relative)
            for spec in self.signature.outputs
            if spec.name in self.floors
        }

    def _measure_floors(self, name: str, runs: _Runs) -> None:
        exact, known = self.comparison.exact, self.comparison.known.get(name, {})
        for spec in self.signature.outputs:
            found = known.get(spec.name, 0.0)
            if exact:
                truth, rounded = runs.of(exact)[spec.name], runs.of(self.comparison.reference)[spec.name]
                found = measure_tensor(spec, truth, rounded).relative
            if spec.name not in self.floors or found > self.floors[spec.name].relative:
                self.floors[spec.name] = Floor(relative=found, case=name)


def _gravity(case: CaseResult) -> tuple[float, float]:
    severity = max((violation.severity for violation in case.violations), default=0.0)
    return severity, max((output.tensor.relative for output in case.outputs), default=0.0)
