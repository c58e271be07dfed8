"""What was measured is judged: limits from floors, verdicts from limits, cases gathered into results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from samdec_export.core.errors import ValidationError
from samdec_export.core.feeds import FeedsCache, NamedFeeds
from samdec_export.core.log import track
from samdec_export.core.results import CaseResult, Floor, Tilt, ValidationResult
from samdec_export.core.signature import Signature
from samdec_export.parity.measure import CaseMeasurement, Comparison, Measured, Place, answer_of, measure_case
from samdec_export.parity.metrics import add_up, worst_of
from samdec_export.parity.tolerances import tilt_findings

__all__ = ["REPEATED", "merge", "validate"]

REPEATED: Final = 3
"""Cases that are run again at the end."""

_Made: TypeAlias = tuple[CaseMeasurement, Measured]


def validate(
    comparisons: Sequence[Comparison],
    signature: Signature,
    cases: Sequence[NamedFeeds],
    findings: tuple[str, ...] = (),
) -> tuple[ValidationResult, ...]:
    """Make every comparison on every case: small ones first, so that the first verdict comes soon.

    The first case is measured last, since its float64 is measured in any event and takes longer than its verdict. A few
    cases are run again after all others: a file that draws numbers, or in which an earlier run leaves something behind,
    answers otherwise. `findings` are reasons to fail that were met before; they are the first comparison's.

    Returns:
        A result for each comparison, with cases in the order that they were given in.

    Raises:
        ValidationError: There is no case: nothing would be compared.
    """
    values = [sum(math.prod(spec.concrete(case.sizes)) for spec in signature.tensors) for case in cases]
    order = sorted(range(len(cases)), key=lambda number: (number == 0, values[number]))
    title = f"Validating {comparisons[0].candidate.name}"
    again, kept = order[:REPEATED], FeedsCache()
    asked = [kept.keep([case])[0] if number in again else case for number, case in enumerate(cases)]
    measured = {
        number: measure_case(comparisons, signature, asked[number], Place(number=number, total=len(cases)), findings)
        for number in track(order, title)
    }
    first, *others = merge([*measured.values()])
    changed = [
        f"the same inputs have another answer after other cases have run ({cases[number].name})"
        for number in reversed(again)
        if (answer := measured[number].answer) and answer != answer_of(comparisons[0].candidate, asked[number])
    ]
    return (replace(first, findings=(*first.findings, *changed)), *others)


def merge(measurements: Sequence[CaseMeasurement]) -> tuple[ValidationResult, ...]:
    """Judge the cases of one sweep, wherever and in whatever order they were measured.

    Returns:
        A result for each comparison, with cases in the sweep's order.

    Raises:
        ValidationError: There is no case, one is missing or there twice, or not all compare the same.
    """
    if not measurements:
        raise ValidationError("There is no case to compare.", "A validation that compares nothing proves nothing.")
    ordered = sorted(measurements, key=lambda item: item.place.number)
    places = [item.place for item in ordered]
    if places != [Place(number=number, total=places[0].total) for number in range(places[0].total)]:
        numbers = ", ".join(f"{place.number} of {place.total}" for place in places)
        raise ValidationError(f"These are not the cases of one sweep: {numbers}.", "Measure what is missing.")
    for made in _by_comparison(ordered):
        alike = {(part.candidate, part.reference, part.tolerance) for _, part in made}
        if len(alike) > 1 or (len(made) < len(ordered) and not all(part.small_only for _, part in made)):
            names = [f"{part.candidate} against {part.reference}" for item in ordered for part in item.parts]
            raise ValidationError(
                f"The cases were not all compared alike: {'; '.join(dict.fromkeys(names))}.",
                "Measure every case with the same versions and the same limits.",
            )
    first, *others = map(_result, _by_comparison(ordered))
    findings = tuple(dict.fromkeys(finding for item in ordered for finding in item.findings))
    return (replace(first, findings=(*findings, *first.findings)), *others)


def _by_comparison(ordered: Sequence[CaseMeasurement]) -> list[list[_Made]]:
    """Gather what each comparison gave."""
    found: dict[int, list[_Made]] = {}
    for item in ordered:
        for part in item.parts:
            found.setdefault(part.number, []).append((item, part))
    return [found[number] for number in sorted(found)]


def _result(made: Sequence[_Made]) -> ValidationResult:
    parts = [part for _, part in made]
    tilts = dict(_mean_tilts(parts))
    names = [name for name in parts[0].limits if any(name in part.errors for part in parts)]
    return ValidationResult(
        candidate=parts[0].candidate,
        reference=parts[0].reference,
        limits=parts[0].tolerance,
        floors=dict(_largest_floors(made)),
        cases=tuple(
            CaseResult(
                case=item.case,
                sizes=item.sizes,
                passed=not part.violations,
                outputs=part.outputs,
                violations=part.violations,
                limits=part.limits,
            )
            for item, part in made
        ),
        findings=tuple(
            finding
            for name, tilt in tilts.items()
            if not any(part.violations for part in parts)  # which say more
            for finding in tilt_findings(
                name, tilt, statistics.fmean(part.limits[name].relative for part in parts), len(parts)
            )
        ),
        tilts=tilts,
        errors={name: add_up([part.errors[name] for part in parts if name in part.errors]) for name in names},
        masks=worst_of(
            replace(mask, comparison=f"{part.candidate} against {part.reference}")
            for part in parts
            for mask in part.masks
        ),
    )


def _mean_tilts(parts: Sequence[Measured]) -> Iterator[tuple[str, Tilt]]:
    """Give which way the errors of each output point on average over the cases that have numbers."""
    for name in parts[0].limits:
        tilts = [output.tilt for part in parts for output in part.outputs if output.name == name]
        if tilts:
            yield name, Tilt(**{key: statistics.fmean(getattr(tilt, key) for tilt in tilts) for key in Tilt.__slots__})


def _largest_floors(made: Sequence[_Made]) -> Iterator[tuple[str, Floor]]:
    """Give the largest floor of each output among those that were measured, and its case."""
    for name in made[0][1].limits:
        measured = [
            (found, item.case)
            for item, part in made
            for found in (part.limits[name].floor, part.scale.get(name))
            if found is not None
        ]
        if measured:
            relative, case = max(measured, key=lambda pair: pair[0])
            yield name, Floor(relative=relative, case=case)
