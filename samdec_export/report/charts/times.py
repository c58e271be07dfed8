"""The candidates on one workload: a bar for each median, from zero, with its quartiles and the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from samdec_export.report.charts.scales import WIDTH
from samdec_export.report.figures import seconds
from samdec_export.report.views import TimingRow

__all__ = ["TimeBar", "TimesChart", "times_charts"]

LENGTH, ROW = 236.0, 36.0
"""Of the longest bar, which leaves room for its time at the right, and of a row: a name above a bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBar:
    """A candidate's median with its quartiles, and where the baseline stands; no bar where `refused` says why."""

    candidate: str
    text: str
    y: float
    end: float
    low: float
    high: float
    before: float | None
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesChart:
    """Every candidate on one workload, from zero."""

    title: str
    summary: str
    bars: tuple[TimeBar, ...]
    width: float
    height: float


def times_charts(rows: Sequence[TimingRow]) -> tuple[TimesChart, ...]:
    """Return a chart for each workload: sizes differ too much between them for one scale."""
    ordered = sorted(rows, key=lambda row: (row.timing.images, row.timing.prompts, row.timing.points))
    return tuple(_times_chart(title, list(group)) for title, group in groupby(ordered, key=lambda row: row.workload))


def _times_chart(title: str, rows: Sequence[TimingRow]) -> TimesChart:
    known = [value for row in rows for value in (row.timing.median, row.timing.high, row.before and row.before.median)]
    unit = LENGTH / max((value for value in known if value), default=1.0)
    measured = [row.timing for row in rows if row.timing.median]
    best = min(measured, key=lambda item: item.median or 0.0, default=None)
    return TimesChart(
        title=title,
        summary=f"The quickest is {best.candidate}, {seconds(best.median)} a run." if best else "None ran.",
        bars=tuple(_bar(row, ROW * index + 17, unit) for index, row in enumerate(rows)),
        width=WIDTH,
        height=ROW * len(rows) + 4,
    )


def _bar(row: TimingRow, y: float, unit: float) -> TimeBar:
    timing, median = row.timing, row.timing.median or 0.0
    return TimeBar(
        candidate=timing.candidate,
        text=seconds(timing.median),
        y=y,
        end=round(median * unit, 1),
        low=round((timing.low or median) * unit, 1),
        high=round((timing.high or median) * unit, 1),
        before=round(row.before.median * unit, 1) if row.before and row.before.median else None,
        refused="" if timing.median else timing.unsupported or "not measured",
    )
