"""One case measured: runners in, numbers out. What follows from the numbers is judged in `validate.py`.

A floor belongs to its case. A case is measured with the limits of its precision; where it breaks them, the reference's
own distance to float64 is measured on this case, its limits are raised by that, and its metrics are taken again. A
floor only loosens, so this gives the verdict that measuring every floor would, and no case depends on another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from samdec_export.core.errors import SamdecError
from samdec_export.core.feeds import NamedFeeds, arrays_sha256
from samdec_export.core.plain import from_plain, to_plain
from samdec_export.core.results import Histogram, Limit, MaskPair, Number, OutputMetrics, Tolerance, Violation
from samdec_export.core.rules import violations_of
from samdec_export.core.runner import Feeds, Outputs, Runner
from samdec_export.core.signature import Signature
from samdec_export.parity.compare import measure_outputs, measure_tensor, structure_problems
from samdec_export.parity.evidence import spread, worst_masks, worst_of
from samdec_export.parity.tolerances import FLOOR_CAP, UNDECIDED_CAP, limit_of

__all__ = ["CaseMeasurement", "Comparison", "Measured", "Place", "answer_of", "measure_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Who is compared with whom.

    Args:
        candidate: The engine to judge.
        reference: What is right.
        exact: The reference in float64, if its own rounding is to be counted.
        tolerance: The limits, before any floor.
        known_floors: In place of `exact`: the reference's own distance to float64 as it was measured before, by case
            and output, as a share of the span.
        evidence: Gather how errors are spread, and the worst masks.
        small_only: Make it on small cases alone: it takes long, and each slice is computed by itself.
    """

    candidate: Runner
    reference: Runner
    exact: Runner | None
    tolerance: Tolerance
    known_floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    evidence: bool = False
    small_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one comparison gave for one case; no verdict.

    Args:
        candidate: The engine to judge.
        reference: What is right.
        tolerance: The limits, before any floor.
        problems: Why there are no numbers, if there are none.
        outputs: Every metric.
        limits: By output, what it may differ by in this case, with the floor where that was needed.
        number: Of the comparison, from 0.
        small_only: Only small cases were compared so.
        scale: By output, the floor of the sweep's first case, which is measured in any case, for the report alone.
        errors: By output, how errors are spread.
        masks: The worst masks.
    """

    candidate: str
    reference: str
    tolerance: Tolerance
    problems: tuple[Violation, ...]
    outputs: tuple[OutputMetrics, ...]
    limits: Mapping[str, Limit]
    number: int = 0
    small_only: bool = False
    scale: Mapping[str, Number] = field(default_factory=dict)
    errors: Mapping[str, Histogram] = field(default_factory=dict)
    masks: tuple[MaskPair, ...] = ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Return what is out of its limits."""
        broken = (
            found for item in self.outputs for found in violations_of(item, self.tolerance, self.limits[item.name])
        )
        return (*self.problems, *broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a case stands in its sweep: its number, and how many there are."""

    number: int = 0
    total: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMeasurement:
    """What every comparison gave for one case.

    Args:
        case: Its name.
        sizes: The length of every dynamic axis.
        place: In the sweep.
        parts: What each comparison gave, in their order.
        findings: Reasons to fail that belong to no case.
        answer: What tells the first candidate's outputs from others; empty where it gave none that can be compared.
    """

    case: str
    sizes: Mapping[str, int]
    place: Place
    parts: tuple[Measured, ...]
    findings: tuple[str, ...] = ()
    answer: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        found: dict[str, Any] = to_plain(self)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseMeasurement:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: `data` is not such an object.
        """
        return from_plain(cls, data)


def measure_case(
    comparisons: Sequence[Comparison],
    signature: Signature,
    case: NamedFeeds,
    place: Place = Place(),
    findings: tuple[str, ...] = (),
) -> CaseMeasurement:
    """Make every comparison on one case; a runner that takes part in several runs once.

    Args:
        comparisons: Who is compared with whom.
        signature: What the graph takes and returns.
        case: Inputs.
        place: Where the case stands in its sweep; on the first one the floors are measured in any case.
        findings: Reasons to fail that were met before.
    """
    runs = _Runs(case.make())
    parts = tuple(
        replace(_Measuring(comparison, signature, case, runs).measure(place.number == 0), number=number)
        for number, comparison in enumerate(comparisons)
        if case.small or not comparison.small_only
    )
    answer = arrays_sha256(runs.of(comparisons[0].candidate)) if parts[0].outputs else ""
    return CaseMeasurement(
        case=case.name, sizes=dict(case.sizes), place=place, parts=parts, findings=findings, answer=answer
    )


def answer_of(candidate: Runner, case: NamedFeeds) -> str:
    """Return what tells the outputs of a candidate from others; empty where it gives none."""
    try:
        return arrays_sha256(candidate.run(case.make()))
    except SamdecError:
        return ""


class _Runs:
    """Outputs of one case, by runner: computed when they are first asked for."""

    def __init__(self, feeds: Feeds) -> None:
        self.feeds = feeds
        self._outputs: dict[int, Outputs] = {}

    def of(self, runner: Runner) -> Outputs:
        if id(runner) not in self._outputs:
            self._outputs[id(runner)] = runner.run(self.feeds)
        return self._outputs[id(runner)]


@dataclass(frozen=True, slots=True)
class _Measuring:
    """One comparison on one case."""

    comparison: Comparison
    signature: Signature
    case: NamedFeeds
    runs: _Runs

    def measure(self, first: bool) -> Measured:
        found = self._with_limits({})
        if found.outputs and found.violations and (floors := self._floors()):
            found = self._with_limits(floors)
            found = replace(found, problems=(*_doubts(floors), *_undecided(found.outputs)))
        return replace(found, scale=self._floors() if first else {}, **self._evidence(found))

    def _with_limits(self, floors: Mapping[str, Number]) -> Measured:
        """Measure with the limits that floors call for, or with those of the tolerance where there are none."""
        tolerance, specs = self.comparison.tolerance, self.signature.outputs
        limits = {spec.name: limit_of(tolerance, spec.content, floors.get(spec.name)) for spec in specs}
        problems = self._problems()
        right = self.runs.of(self.comparison.reference)
        return Measured(
            candidate=self.comparison.candidate.name,
            reference=self.comparison.reference.name,
            tolerance=tolerance,
            problems=problems,
            outputs=() if problems else measure_outputs(specs, right, self.runs.of(self.comparison.candidate), limits),
            limits=limits,
            small_only=self.comparison.small_only,
        )

    def _problems(self) -> tuple[Violation, ...]:
        specs = self.signature.outputs
        try:
            judged = self.runs.of(self.comparison.candidate)
        except SamdecError as error:
            return (Violation(output="", metric="run", detail=str(error)),)
        shapes = {spec.name: spec.concrete(self.case.sizes) for spec in specs}
        return tuple(structure_problems(specs, shapes, self.runs.of(self.comparison.reference), judged))

    def _floors(self) -> dict[str, Number]:
        """Return the reference's own distance to float64 by output; empty where it cannot be known."""
        exact, reference = self.comparison.exact, self.comparison.reference
        if exact is None:
            return {**self.comparison.known_floors.get(self.case.name, {})}
        truth, rounded = self.runs.of(exact), self.runs.of(reference)
        return {
            spec.name: measure_tensor(spec, truth[spec.name], rounded[spec.name]).relative
            for spec in self.signature.outputs
        }

    def _evidence(self, found: Measured) -> dict[str, Any]:
        if not (self.comparison.evidence and found.outputs):
            return {}
        right, judged = (self.runs.of(item) for item in (self.comparison.reference, self.comparison.candidate))
        spans = {output.name: output.tensor.span or 0.0 for output in found.outputs}
        masks = [
            worst_masks(
                self.case.name,
                spec.name,
                right[spec.name],
                judged[spec.name],
                found.limits[spec.name].margin * spans[spec.name],
            )
            for spec in self.signature.outputs
            if spec.content == "masks"
        ]
        return {
            "errors": {name: spread(right[name], judged[name]) for name in spans},
            "masks": worst_of(pair for pairs in masks for pair in pairs),
        }


def _doubts(floors: Mapping[str, Number]) -> Iterator[Violation]:
    """Find outputs whose reference is too far from float64 to say what is right."""
    for name, floor in floors.items():
        if floor is None or floor > FLOOR_CAP:
            distance = "not finite" if floor is None else f"{floor:.2g} of its span from float64"
            yield Violation(
                output=name,
                metric="reference",
                detail=f"it is {distance}, more than {FLOOR_CAP:.2g}: it cannot say what is right for these inputs",
                value=floor,
                limit=FLOOR_CAP,
            )


def _undecided(outputs: tuple[OutputMetrics, ...]) -> Iterator[Violation]:
    """Find masks that a raised margin leaves undecided in too many pixels to be judged."""
    for output in outputs:
        share = output.masks.undecided if output.masks else 0.0
        if share > UNDECIDED_CAP:
            yield Violation(
                output=output.name,
                metric="undecided pixels",
                detail=f"{share:.2%} are nearer to the threshold than the reference's own rounding, "
                f"more than {UNDECIDED_CAP:.0%}",
                value=share,
                limit=UNDECIDED_CAP,
            )
