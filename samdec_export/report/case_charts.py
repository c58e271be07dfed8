"""A metric of one output by shape: a dot for each case on a log scale, beside what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samdec_export.core.results import STRUCTURE, CaseResult, Number
from samdec_export.report.charts import WIDTH, LogScale, Tick
from samdec_export.report.figures import number
from samdec_export.report.parts import Comparison

__all__ = ["case_charts"]

CASES_SHOWN = 40
LABEL_SHOWN = 17
ROW, HEAD, FOOT = 18, 34, 20
TICKS = 5
PLOT = (104.0, 240.0)
"""Where the axis starts and ends: labels stand at its left, values at its right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    case: str
    label: str
    text: str
    x: float
    y: float
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseChart:
    """A metric of one output by shape, on a log scale, with its limit.

    `axes` is what the labels of the rows are made of; the scale begins at `start`; `left_out` cases are not drawn.
    """

    title: str
    summary: str
    axes: str
    rows: tuple[CaseRow, ...]
    ticks: tuple[Tick, ...]
    limit: Tick | None
    start: float
    width: float
    height: float
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metric:
    """What a chart shows: the violation's name of it, and a value for each case."""

    name: str
    output: str
    values: Sequence[tuple[CaseResult, Number]]
    limit: Number


def case_charts(comparison: Comparison) -> tuple[CaseChart, ...]:
    """For each output the relative error by shape, and the flipped pixels where any flipped."""
    metrics = []
    for name in dict.fromkeys(output.name for case in comparison.cases for output in case.outputs):
        found = [(case, next((item for item in case.outputs if item.name == name), None)) for case in comparison.cases]
        errors = [(case, output.tensor.relative if output else None) for case, output in found]
        flips = [(case, output.masks.flipped if output and output.masks else None) for case, output in found]
        own = (case.limits[name].relative for case in comparison.cases if name in case.limits)
        allowed = min(own, default=comparison.allowed.get(name))  # what is asked of every case, before any floor
        metrics.append(_Metric(name="relative error", output=name, values=errors, limit=allowed))
        if any(flipped for _, flipped in flips):
            limit = comparison.limits.flipped
            metrics.append(_Metric(name="flipped pixels", output=name, values=flips, limit=limit))
    return tuple(_chart(metric) for metric in metrics)


def _chart(metric: _Metric) -> CaseChart:
    shown, limit = _worst(metric.values), metric.limit
    axes, labels = _labels([case.case for case, _ in shown])
    scale = LogScale.over([*(value for _, value in shown), limit], *PLOT)
    rows = tuple(
        CaseRow(
            case=case.case,
            label=label,
            text=number(value) if case.outputs else "no value",
            x=scale.at(value),
            y=HEAD + ROW * (index + 0.5),
            failed=any(
                item.output in (metric.output, "") and item.metric in (metric.name, *STRUCTURE)
                for item in case.violations
            ),
        )
        for index, ((case, value), label) in enumerate(zip(shown, labels, strict=True))
    )
    known = [(value, case.case) for case, value in metric.values if value is not None]
    largest = f"the largest value {number(max(known)[0])} at {max(known)[1]}" if known else "none with a value"
    return CaseChart(
        title=f"{metric.name.capitalize()} of {metric.output}",
        summary=f"{len(metric.values)} cases, {largest}; {number(limit)} is allowed.",
        axes=axes,
        rows=rows,
        ticks=scale.ticks(TICKS),
        limit=None if limit is None else Tick(at=scale.at(limit), label=f"allowed {number(limit)}"),
        start=PLOT[0],
        width=WIDTH,
        height=HEAD + ROW * len(rows) + FOOT,
        left_out=len(metric.values) - len(shown),
    )


def _worst(values: Sequence[tuple[CaseResult, Number]]) -> list[tuple[CaseResult, Number]]:
    """Return the cases to draw, in their order: those that fail and those with the largest values."""
    ranks = [(case.passed, -math.inf if value is None else -value) for case, value in values]
    return [values[at] for at in sorted(sorted(range(len(values)), key=ranks.__getitem__)[:CASES_SHOWN])]


def _labels(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return what names like `axis=size,...` have in common, and the rest of each; the names where they differ."""
    parts = [[part.partition("=") for part in name.split(",")] for name in names]
    axes = {tuple(axis for axis, _, _ in part) for part in parts}
    if len(axes) == 1 and all(equals for part in parts for _, equals, _ in part):
        labels = [" x ".join(size for _, _, size in part) for part in parts]
        return " x ".join(axes.pop()), [_cut(label) for label in labels]
    return "case", [_cut(name) for name in names]


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_SHOWN else label[: LABEL_SHOWN - 1] + "…"
