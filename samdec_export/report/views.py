"""What a document says, gathered for a reader: the worst of each output, how near each threshold is, times compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from samdec_export.core.results import Number, OutputMetrics
from samdec_export.report.document import Document
from samdec_export.report.figures import size
from samdec_export.report.parts import Comparison, Latency, RangeRow, Timing, Verdict

__all__ = [
    "OutputRow",
    "TimingRow",
    "closest",
    "failed",
    "headline",
    "nearest_ranges",
    "output_rows",
    "reach",
    "timing_rows",
    "to_lines",
    "usage",
]


LINES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """One output of a comparison: the worst of every metric over all cases, and the case with the largest error."""

    output: str
    cases: int
    relative: Number
    allowed: Number
    passed: bool
    worst_case: str
    max_abs: Number
    mean_abs: Number
    cosine: Number
    psnr: Number
    iou: float | None
    flipped: float | None
    best_mask: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRow:
    """A measurement beside the same one of the baseline; `change` is the share by which it is slower."""

    timing: Timing
    before: Timing | None
    change: float | None

    @property
    def workload(self) -> str:
        """Return a workload in words, such as `1 image, 8 prompts, 2 points`."""
        counts = (("image", self.timing.images), ("prompt", self.timing.prompts), ("point", self.timing.points))
        return ", ".join(f"{count} {unit}{'' if count == 1 else 's'}" for unit, count in counts)


def headline(document: Document) -> str:
    """Return the verdict's sentence without its first word, which every rendering sets apart."""
    return document.headline.removeprefix("FAILED: ").removeprefix("PASSED: ")


def failed(document: Document) -> list[Verdict]:
    """Return the verdicts that fail, the gravest first."""
    return sorted((verdict for verdict in document.verdicts if not verdict.passed), key=_gravity, reverse=True)


def closest(document: Document, count: int) -> list[Verdict]:
    """Return up to `count` verdicts that pass, those that used most of what is allowed first."""
    passed = [verdict for verdict in document.verdicts if verdict.passed and usage(verdict) is not None]
    return sorted(passed, key=_gravity, reverse=True)[:count]


def usage(verdict: Verdict) -> float | None:
    """Return how much of what is allowed was used: 1 is the limit. None where the verdict does not tell.

    What a threshold asks to be at least so much is a share; its distance to 1 is what is used.
    """
    measured, allowed = verdict.measured, verdict.allowed
    if measured is None or allowed is None or verdict.bound is None:
        return None
    if verdict.bound == "at least":
        measured, allowed = 1 - measured, 1 - allowed
    if allowed <= 0:
        return 0.0 if measured <= 0 else math.inf
    return measured / allowed


def output_rows(comparison: Comparison) -> list[OutputRow]:
    """Return a row for each output that was compared."""
    found: dict[str, list[tuple[str, OutputMetrics]]] = {}
    for case in comparison.cases:
        for output in case.outputs:
            found.setdefault(output.name, []).append((case.case, output))
    broken = {violation.output for case in comparison.cases for violation in case.violations}
    return [
        _row(name, outputs, comparison.allowed.get(name), passed=not broken & {name, ""})
        for name, outputs in found.items()
    ]


def nearest_ranges(document: Document, count: int) -> list[RangeRow]:
    """Return up to `count` tensors, those nearest to the largest number of the precision first."""
    return sorted(document.ranges, key=reach, reverse=True)[:count]


def reach(row: RangeRow) -> float:
    """Return the largest magnitude as a share of the largest number; infinite where it is no number."""
    return math.inf if row.absmax is None else row.absmax / row.limit if row.limit > 0 else math.inf


def timing_rows(latency: Latency) -> list[TimingRow]:
    """Return every measurement, in its order, beside its baseline."""
    earlier = {_key(item): item for item in latency.baseline.measurements} if latency.baseline else {}
    return [
        TimingRow(timing=item, before=earlier.get(_key(item)), change=_change(item, earlier.get(_key(item))))
        for item in latency.measurements
    ]


def to_lines(document: Document) -> Iterator[str]:
    """Yield the verdict, what breaks or comes nearest to a threshold, and the artifacts."""
    yield f"{'PASSED' if document.passed else 'FAILED'}: {headline(document)}"
    broken = failed(document)
    yield from (f"  {verdict.sentence}" for verdict in broken[:LINES_SHOWN])
    if len(broken) > LINES_SHOWN:
        yield f"  and {len(broken) - LINES_SHOWN} more"
    for verdict in closest(document, LINES_SHOWN) if document.passed else ():
        where = ", ".join(part for part in (verdict.artifact, verdict.output, verdict.case) if part)
        yield f"  {usage(verdict) or 0.0:>7.1%} of {verdict.threshold} used by {where}"
    for artifact in document.artifacts:
        here = f"{artifact.status} ({artifact.reason})" if artifact.reason else artifact.status
        yield f"{artifact.name}  {artifact.precision}, {size(artifact.bytes)}, {here}"


def _key(item: Timing) -> tuple[str, int, int, int]:
    return item.candidate, item.images, item.prompts, item.points


def _change(item: Timing, before: Timing | None) -> float | None:
    if before is None or not item.median or not before.median:
        return None
    return item.median / before.median - 1


def _gravity(verdict: Verdict) -> float:
    used = usage(verdict)
    return math.inf if used is None else used


def _row(name: str, outputs: list[tuple[str, OutputMetrics]], allowed: Number, passed: bool) -> OutputRow:
    tensors = [output.tensor for _, output in outputs]
    masks = [output.masks for _, output in outputs if output.masks]
    scores = [output.best_mask for _, output in outputs if output.best_mask is not None]
    worst_case, _ = max(outputs, key=lambda pair: _size(pair[1].tensor.relative))
    return OutputRow(
        output=name,
        cases=len(outputs),
        relative=_most(tensor.relative for tensor in tensors),
        allowed=allowed,
        passed=passed,
        worst_case=worst_case,
        max_abs=_most(tensor.max_abs for tensor in tensors),
        mean_abs=_most(tensor.mean_abs for tensor in tensors),
        cosine=min((tensor.cosine for tensor in tensors if tensor.cosine is not None), default=None),
        psnr=min((tensor.psnr for tensor in tensors if tensor.psnr is not None), default=None),
        iou=min((mask.iou_min for mask in masks), default=None),
        flipped=max((mask.flipped for mask in masks), default=None),
        best_mask=min(scores, default=None),
    )


def _size(value: Number) -> float:
    return math.inf if value is None else value


def _most(values: Iterable[Number]) -> Number:
    most = max(map(_size, values))
    return most if math.isfinite(most) else None
