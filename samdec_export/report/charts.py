"""The geometry of the charts: places and texts in the units of an SVG; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from samdec_export.core.results import Histogram, Number
from samdec_export.report.figures import number, percent, seconds
from samdec_export.report.parts import RangeRow
from samdec_export.report.views import TimingRow, reach

__all__ = ["WIDTH", "LogScale", "Tick", "errors_chart", "ranges_chart", "times_charts"]

WIDTH = 300.0
"""Units across a chart, which is what a phone has: letters are 11 CSS pixels high there."""

LEFT, RIGHT, TOP, BASE, FOOT = 18.0, WIDTH - 18.0, 18.0, 130.0, 20.0

LONG_WIDTH, LONG_HEIGHT, LONG_LEFT = 860.0, 260.0, 44.0
"""Wider than a phone: a graph has hundreds of tensors. It scrolls in a box of its own."""

LENGTH, ROW = 236.0, 36.0
"""Of the longest bar, which leaves room for its time at the right, and of a row: a name above a bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A place on an axis, and what it is called."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogScale:
    """Whole decades from 10**low to 10**high, laid between `start` and `end`."""

    low: int
    high: int
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[Number], start: float, end: float) -> LogScale:
        """Return the decades that hold every positive number of `values`; one decade below 1 where there is none."""
        logs = [math.log10(value) for value in values if value is not None and 0 < value < math.inf]
        low, high = math.floor(min(logs, default=-1)), math.ceil(max(logs, default=0))
        return cls(low=low, high=max(high, low + 1), start=start, end=end)

    def at(self, value: Number) -> float:
        """Return where a value stands: zero at the start, what is infinite or no number at the end."""
        if value is None or not math.isfinite(value):
            return self.end
        return self.at_power(math.log10(value)) if value > 0 else self.start

    def at_power(self, power: float) -> float:
        """Return the place of 10**power, at most the axis's ends."""
        share = (power - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """Return up to `most` decades, evenly spaced."""
        stride = max(1, math.ceil((self.high - self.low) / (most - 1)))
        return tuple(
            Tick(at=self.at_power(power), label=f"1e{power}") for power in range(self.low, self.high + 1, stride)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A box, with what it says to who points at it."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsChart:
    """How the errors of one output are spread: a bar for each bin, its height the share of values."""

    title: str
    summary: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    base: float
    top: str
    width: float
    height: float


def errors_chart(output: str, found: Histogram) -> ErrorsChart | None:
    """Return the bins from the first to the last that holds a value; None where every value is exact."""
    held = [index for index, count in enumerate(found.counts) if count > 0]
    if not held:
        return None
    total, most = sum(found.counts) + found.exact, max(found.counts)
    low, high = found.edges[held[0]], found.edges[held[-1] + 1]

    def at(power: float) -> float:
        return round(LEFT + (power - low) / (high - low) * (RIGHT - LEFT), 1)

    bars = []
    for index in range(held[0], held[-1] + 1):
        start, end = found.edges[index : index + 2]
        share, tall = found.counts[index] / total, round((BASE - TOP) * found.counts[index] / most, 1)
        text = f"{number(10**start)} to {number(10**end)}: {percent(share)}"
        bars.append(Bar(x=at(start), y=BASE - tall, width=max(at(end) - at(start) - 1, 0.5), height=tall, text=text))
    powers = range(math.ceil(low), math.floor(high) + 1)
    return ErrorsChart(
        title=f"Errors of {output}",
        summary=f"{total:,} values: {percent(found.exact / total) if found.exact else 'none'} exact, the others off by "
        f"{number(10**low)} to {number(10**high)}.",
        bars=tuple(bars),
        ticks=tuple(Tick(at=at(power), label=f"1e{power}") for power in powers[:: max(1, math.ceil(len(powers) / 5))]),
        base=BASE,
        top=percent(most / total),
        width=WIDTH,
        height=BASE + FOOT,
    )


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
    scale = LogScale.over([*(row.absmax for row in rows), limit], LONG_HEIGHT - 12, 18.0)
    step = (LONG_WIDTH - LONG_LEFT - 10) / max(len(rows) - 1, 1)
    points = tuple(
        RangePoint(
            x=round(LONG_LEFT + step * index, 1),
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
        ticks=scale.ticks(7),
        limit=Tick(at=scale.at(limit), label=f"largest number {number(limit)}"),
        width=LONG_WIDTH,
        height=LONG_HEIGHT,
    )


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
