"""What was measured is judged: limits from floors, verdicts from limits, cases gathered into results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from samdec_export.core.errors import ValidationError
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.log import track
from samdec_export.core.results import CaseResult, Floor, ValidationResult
from samdec_export.core.signature import Signature
from samdec_export.parity.measure import CaseMeasurement, Comparison, Measured, Place, measure_case
from samdec_export.parity.metrics import add_up, worst_of

__all__ = ["merge", "validate"]


def validate(
    comparisons: Sequence[Comparison],
    signature: Signature,
    cases: Sequence[NamedFeeds],
    findings: tuple[str, ...] = (),
) -> tuple[ValidationResult, ...]:
    """Make every comparison on every case: small ones first, so that the first verdict comes soon.

    The first case is measured last, since its float64 is measured in any event and takes longer than its verdict.
    `findings` are reasons to fail that were met before; they are the first comparison's.

    Returns:
        A result for each comparison, with cases in the order that they were given in.

    Raises:
        ValidationError: There is no case: nothing would be compared.
    """
    values = [sum(math.prod(spec.concrete(case.sizes)) for spec in signature.tensors) for case in cases]
    order = sorted(range(len(cases)), key=lambda number: (number == 0, values[number]))
    title = f"Validating {comparisons[0].candidate.name}"
    return merge(
        [
            measure_case(comparisons, signature, cases[number], Place(number=number, total=len(cases)), findings)
            for number in track(order, title)
        ]
    )


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
    compared = {tuple((part.candidate, part.reference, part.tolerance) for part in item.parts) for item in ordered}
    if len(compared) > 1:
        names = [f"{part.candidate} against {part.reference}" for item in ordered for part in item.parts]
        raise ValidationError(
            f"The cases were not all compared alike: {'; '.join(dict.fromkeys(names))}.",
            "Measure every case with the same versions and the same limits.",
        )
    results = [_result(ordered, index) for index in range(len(ordered[0].parts))]
    findings = tuple(dict.fromkeys(finding for item in ordered for finding in item.findings))
    return tuple(replace(result, findings=() if index else findings) for index, result in enumerate(results))


def _result(ordered: Sequence[CaseMeasurement], index: int) -> ValidationResult:
    parts = [item.parts[index] for item in ordered]
    names = [name for name in parts[0].limits if any(name in part.errors for part in parts)]
    return ValidationResult(
        candidate=parts[0].candidate,
        reference=parts[0].reference,
        limits=parts[0].tolerance,
        floors=dict(_largest_floors(ordered, parts)),
        cases=tuple(
            CaseResult(
                case=item.case,
                sizes=item.sizes,
                passed=not part.violations,
                outputs=part.outputs,
                violations=part.violations,
                limits=part.limits,
            )
            for item, part in zip(ordered, parts, strict=True)
        ),
        errors={name: add_up([part.errors[name] for part in parts if name in part.errors]) for name in names},
        masks=worst_of(
            replace(mask, comparison=f"{part.candidate} against {part.reference}")
            for part in parts
            for mask in part.masks
        ),
    )


def _largest_floors(ordered: Sequence[CaseMeasurement], parts: Sequence[Measured]) -> Iterator[tuple[str, Floor]]:
    """Give the largest floor of each output among those that were measured, and its case."""
    for name in parts[0].limits:
        measured = [
            (found, item.case)
            for item, part in zip(ordered, parts, strict=True)
            for found in (part.limits[name].floor, part.scale.get(name))
            if found is not None
        ]
        if measured:
            relative, case = max(measured, key=lambda pair: pair[0])
            yield name, Floor(relative=relative, case=case)
