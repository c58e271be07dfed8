"""Magnitudes in graph order, on a log scale, beside the largest number of the precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samdec_export.report.charts.scales import LogScale, Tick
from samdec_export.report.document import RangeRow
from samdec_export.report.figures import number
from samdec_export.report.views import reach

__all__ = ["RangePoint", "RangesChart", "ranges_chart"]

CHART_WIDTH, HEIGHT, LEFT = 860.0, 260.0, 44.0
"""Wider than a phone: a graph has hundreds of tensors. It scrolls in a box of its own."""

TICKS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePoint:
    """A tensor: its place in graph order and its magnitude."""

    x: float
    y: float
    kept: bool
    over: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesChart:
    """Magnitudes in graph order, on a log scale, beside the largest number of the precision."""

    summary: str
    points: tuple[RangePoint, ...]
    ticks: tuple[Tick, ...]
    limit: Tick
    width: float
    height: float


def ranges_chart(rows: Sequence[RangeRow]) -> RangesChart:
    """Return every tensor, the first of the graph at the left."""
    limit = max(row.limit for row in rows)
    scale = LogScale.over([*(row.absmax for row in rows), limit], HEIGHT - 12, 18.0)
    step = (CHART_WIDTH - LEFT - 10) / max(len(rows) - 1, 1)
    points = tuple(
        RangePoint(
            x=round(LEFT + step * index, 1),
            y=scale.at(row.absmax),
            kept=row.kept,
            over=reach(row) > 1,
            text=f"{row.tensor} ({row.op or 'no node'}): {number(row.absmax)}" + (", kept in fp32" if row.kept else ""),
        )
        for index, row in enumerate(rows)
    )
    largest = max(rows, key=reach)
    return RangesChart(
        summary=f"{len(rows)} tensors in graph order; the largest magnitude is {number(largest.absmax)}, of "
        f"{largest.tensor}; {number(limit)} is the most that the precision holds.",
        points=points,
        ticks=scale.ticks(TICKS),
        limit=Tick(at=scale.at(limit), label=f"largest number {number(limit)}"),
        width=CHART_WIDTH,
        height=HEIGHT,
    )
