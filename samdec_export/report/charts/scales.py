"""Where a value stands on an axis of a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from samdec_export.core.results import Number

__all__ = ["WIDTH", "LogScale", "Tick"]

WIDTH = 300.0
"""Units across a chart, which is what a phone has: letters are 11 CSS pixels high there."""


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
