"""How the errors of one output are spread: a bar for each bin, its height the share of values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdec_export.core.results import Histogram
from samdec_export.report.charts.scales import WIDTH, Tick
from samdec_export.report.figures import number, percent

__all__ = ["Bar", "ErrorsChart", "errors_chart"]

LEFT, RIGHT, TOP, BASE, FOOT = 18.0, WIDTH - 18.0, 18.0, 130.0, 20.0
TICKS = 5


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
    return ErrorsChart(
        title=f"Errors of {output}",
        summary=f"{total:,} values: {percent(found.exact / total) if found.exact else 'none'} exact, the others off by "
        f"{number(10**low)} to {number(10**high)}.",
        bars=tuple(bars),
        ticks=tuple(Tick(at=at(power), label=f"1e{power}") for power in _decades(low, high)),
        base=BASE,
        top=percent(most / total),
        width=WIDTH,
        height=BASE + FOOT,
    )


def _decades(low: float, high: float) -> list[int]:
    """Return up to TICKS whole powers of ten between two."""
    powers = list(range(math.ceil(low), math.floor(high) + 1))
    return powers[:: max(1, math.ceil(len(powers) / TICKS))]
