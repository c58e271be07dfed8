"""One case measured: runners in, numbers out. What follows from the numbers is judged in `validate.py`.

A floor belongs to its case. A case is measured with the limits of its precision; where it breaks them, the reference's
own distance to float64 is measured on this case, its limits are raised by that, and its metrics are taken again. A
floor only loosens, so this gives the verdict that measuring every floor would, and no case depends on another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from samdec_export.core.errors import SamdecError
from samdec_export.core.feeds import NamedFeeds, arrays_sha256
from samdec_export.core.plain import from_plain, to_plain
from samdec_export.core.results import Histogram, Limit, MaskPair, Number, OutputMetrics, Tolerance, Violation
from samdec_export.core.rules import violations_of
from samdec_export.core.runner import Outputs, Runner
from samdec_export.core.signature import Signature
from samdec_export.parity.metrics import (
    flipped_masks,
    measure_outputs,
    measure_tensor,
    spread,
    structure_problems,
    worst_of,
)
from samdec_export.parity.tolerances import FLOOR_CAP, UNDECIDED_CAP, limit_of

__all__ = ["CaseMeasurement", "Comparison", "Measured", "Place", "answer_of", "measure_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Who is compared with whom, and the limits before any floor.

    `exact` is the reference in float64, if its own rounding is to be counted; in its place `known_floors` are the
    distances between the two as measured before, by case and output, as a share of the span. `evidence` asks for how
    errors are spread and for the worst masks. A `small_only` one is made on small cases: it takes long, and each slice
    is computed by itself.
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

    `tolerance` holds the limits before any floor, `limits` those of each output in this case, with the floor where that
    was needed. `problems` say why there are no numbers, or why they cannot be trusted. `scale` holds each output's
    floor in the sweep's first case, for the report alone; `errors` how each output's errors are spread; `masks` the
    worst masks. `number` is that of the comparison.
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
        found = (violations_of(item, self.tolerance, self.limits[item.name]) for item in self.outputs)
        return (*self.problems, *chain.from_iterable(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a case stands in its sweep: its number, and how many there are."""

    number: int = 0
    total: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMeasurement:
    """What every comparison gave for one case, in their order, and reasons to fail that belong to no case.

    `answer` tells the first candidate's outputs from others; empty where it gave none that can be compared.
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
        """Read what `to_json` wrote; raise KeyError, TypeError or ValueError where `data` is not such an object."""
        return from_plain(cls, data)


def measure_case(
    comparisons: Sequence[Comparison],
    signature: Signature,
    case: NamedFeeds,
    place: Place = Place(),
    findings: tuple[str, ...] = (),
) -> CaseMeasurement:
    """Make every comparison on one case; a runner that takes part in several runs once.

    On the sweep's first case the floors are measured in any case. `findings` are reasons to fail that were met before.
    """
    feeds = case.make()
    outputs: dict[int, Outputs] = {}

    def outputs_of(runner: Runner) -> Outputs:
        if id(runner) not in outputs:
            outputs[id(runner)] = runner.run(feeds)
        return outputs[id(runner)]

    parts = tuple(
        replace(_Measuring(comparison, signature, case, outputs_of).measure(place.number == 0), number=number)
        for number, comparison in enumerate(comparisons)
        if case.small or not comparison.small_only
    )
    answer = arrays_sha256(outputs_of(comparisons[0].candidate)) if parts[0].outputs else ""
    return CaseMeasurement(
        case=case.name, sizes=dict(case.sizes), place=place, parts=parts, findings=findings, answer=answer
    )


def answer_of(candidate: Runner, case: NamedFeeds) -> str:
    """Return what tells the outputs of a candidate from others; empty where it gives none."""
    try:
        return arrays_sha256(candidate.run(case.make()))
    except SamdecError:
        return ""


@dataclass(frozen=True, slots=True)
class _Measuring:
    """One comparison on one case."""

    comparison: Comparison
    signature: Signature
    case: NamedFeeds
    outputs_of: Callable[[Runner], Outputs]

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
        problems, run = self._problems(), self.outputs_of
        right = run(self.comparison.reference)
        return Measured(
            candidate=self.comparison.candidate.name,
            reference=self.comparison.reference.name,
            tolerance=tolerance,
            problems=problems,
            outputs=() if problems else measure_outputs(specs, right, run(self.comparison.candidate), limits),
            limits=limits,
            small_only=self.comparison.small_only,
        )

    def _problems(self) -> tuple[Violation, ...]:
        specs = self.signature.outputs
        try:
            judged = self.outputs_of(self.comparison.candidate)
        except SamdecError as error:
            return (Violation(output="", metric="run", detail=str(error)),)
        shapes = {spec.name: spec.concrete(self.case.sizes) for spec in specs}
        return tuple(structure_problems(specs, shapes, self.outputs_of(self.comparison.reference), judged))

    def _floors(self) -> dict[str, Number]:
        """Return the reference's own distance to float64 by output; empty where it cannot be known."""
        exact, reference = self.comparison.exact, self.comparison.reference
        if exact is None:
            return {**self.comparison.known_floors.get(self.case.name, {})}
        truth, rounded = self.outputs_of(exact), self.outputs_of(reference)
        return {
            spec.name: measure_tensor(spec, truth[spec.name], rounded[spec.name]).relative
            for spec in self.signature.outputs
        }

    def _evidence(self, found: Measured) -> dict[str, Any]:
        if not (self.comparison.evidence and found.outputs):
            return {}
        right, judged = self.outputs_of(self.comparison.reference), self.outputs_of(self.comparison.candidate)
        spans = {output.name: output.tensor.span or 0.0 for output in found.outputs}
        margins = {name: found.limits[name].margin * span for name, span in spans.items()}
        names = [spec.name for spec in self.signature.outputs if spec.content == "masks"]
        masks = (flipped_masks(self.case.name, name, right[name], judged[name], margins[name]) for name in names)
        return {
            "errors": {name: spread(right[name], judged[name]) for name in spans},
            "masks": worst_of(chain.from_iterable(masks)),
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
