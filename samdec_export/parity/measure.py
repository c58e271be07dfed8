"""One case measured: runners in, numbers out. What follows from the numbers is judged in `validate.py`.

A floor belongs to its case. A case is measured with the limits of its precision; where it breaks them, the reference's
own distance to float64 is measured on this case, its limits are raised by that, and its metrics are taken again. A
floor only loosens, so this gives the verdict that measuring every floor would, and no case depends on another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from samdec_export.core.errors import SamdecError
from samdec_export.core.feeds import NamedFeeds
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
from samdec_export.parity.tolerances import limit_of

__all__ = ["CaseMeasurement", "Comparison", "Measured", "Place", "measure_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Who is compared with whom, and the limits before any floor.

    `exact` is the reference in float64, if its own rounding is to be counted; in its place `known_floors` are the
    distances between the two as measured before, by case and output, as a share of the span. `evidence` asks for how
    errors are spread and for the worst masks.
    """

    candidate: Runner
    reference: Runner
    exact: Runner | None
    tolerance: Tolerance
    known_floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    evidence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one comparison gave for one case; no verdict.

    `tolerance` holds the limits before any floor, `limits` those of each output in this case, with the floor where that
    was needed. `problems` say why there are no numbers. `scale` holds each output's floor in the sweep's first case,
    for the report alone; `errors` how each output's errors are spread; `masks` the worst masks.
    """

    candidate: str
    reference: str
    tolerance: Tolerance
    problems: tuple[Violation, ...]
    outputs: tuple[OutputMetrics, ...]
    limits: Mapping[str, Limit]
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
    """What every comparison gave for one case, in their order, and reasons to fail that belong to no case."""

    case: str
    sizes: Mapping[str, int]
    place: Place
    parts: tuple[Measured, ...]
    findings: tuple[str, ...] = ()

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
    outputs: dict[Runner, Outputs] = {}

    def outputs_of(runner: Runner) -> Outputs:
        if runner not in outputs:
            outputs[runner] = runner.run(feeds)
        return outputs[runner]

    parts = tuple(
        _Measuring(comparison, signature, case, outputs_of).measure(place.number == 0) for comparison in comparisons
    )
    return CaseMeasurement(case=case.name, sizes=dict(case.sizes), place=place, parts=parts, findings=findings)


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
