"""A small set of nodes to keep in fp32, found by what keeping them buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["SearchResult", "Unit", "search"]

SEGMENTS: Final = 8
"""Into how many runs of nodes the graph is cut at first."""

SHARE_OF_GAIN: Final = 0.7
"""A part stands for the whole if it brings this much of what the whole brings."""

Measure = Callable[[frozenset[str]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Neighbouring nodes that stay in fp32 together, and what the measure would be without them."""

    nodes: tuple[str, ...]
    without: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What to keep. `before` is the measure with nothing kept, `after` with `units`, `measured` counts the trials."""

    units: tuple[Unit, ...]
    before: float
    after: float
    target: float
    measured: int

    @property
    def reached(self) -> bool:
        """Return whether the target is met."""
        return self.after <= self.target

    @property
    def nodes(self) -> frozenset[str]:
        """Return every node to keep."""
        return frozenset(node for unit in self.units for node in unit.nodes)


def search(
    nodes: Sequence[str], measure: Measure, target: float, *, weights: Mapping[str, float], budget: float
) -> SearchResult:
    """Find nodes to keep so that `measure` is at most `target`.

    The graph is cut into runs of nodes; the run that brings most is narrowed by halves while a half brings nearly as
    much, and kept; and so on until the target is met. What turns out not to be needed is then given back. So the
    number of trials follows the number of culprits, not the size of the graph.

    Args:
        nodes: Candidates, in graph order.
        measure: What a set of kept nodes leads to; smaller is better. Expensive.
        target: What is wanted.
        weights: What keeping a node costs; 0 for one that is not named.
        budget: The most that all kept nodes may cost together.
    """
    trials = _Trials(measure)
    kept: list[tuple[str, ...]] = []
    before = after = trials.of(())
    while after > target:
        room = budget - _cost(kept, weights)
        left = [node for node in nodes if not any(node in run for run in kept)]
        best = _best_run(left, kept, trials, room, weights)
        if best is None:
            break
        kept.append(best)
        after = trials.of(kept)
    kept = _needed(kept, trials, max(target, after))
    after = trials.of(kept)
    units = tuple(Unit(nodes=run, without=trials.of([other for other in kept if other != run])) for run in kept)
    return SearchResult(units=units, before=before, after=after, target=target, measured=len(trials.found))


@dataclass(slots=True)
class _Trials:
    """Remembers what was measured."""

    measure: Measure
    found: dict[frozenset[str], float] = field(default_factory=dict)

    def of(self, runs: Sequence[tuple[str, ...]]) -> float:
        kept = frozenset(node for run in runs for node in run)
        if kept not in self.found:
            self.found[kept] = self.measure(kept)
        return self.found[kept]


def _cost(runs: Sequence[tuple[str, ...]], weights: Mapping[str, float]) -> float:
    return sum(weights.get(node, 0.0) for run in runs for node in run)


def _best_run(
    left: list[str], kept: list[tuple[str, ...]], trials: _Trials, room: float, weights: Mapping[str, float]
) -> tuple[str, ...] | None:
    """Return the run that brings most, as short as it can be; None if none brings anything."""
    now = trials.of(kept)
    size = max(1, -(-len(left) // SEGMENTS))
    runs = [tuple(left[start : start + size]) for start in range(0, len(left), size)]
    affordable = [part for run in runs for part in _within(run, room, weights)]
    gains = {run: now - trials.of([*kept, run]) for run in affordable}
    best = max(gains, key=lambda run: gains[run], default=None)
    if best is None or gains[best] <= 0:
        return None
    while len(best) > 1:
        halves = best[: len(best) // 2], best[len(best) // 2 :]
        half, gain = max(((half, now - trials.of([*kept, half])) for half in halves), key=lambda item: item[1])
        if gain < SHARE_OF_GAIN * gains.setdefault(best, gain):
            break
        best, gains[half] = half, gain
    return best


def _within(run: tuple[str, ...], room: float, weights: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return the run, or its parts that cost no more than `room`."""
    if _cost([run], weights) <= room:
        return [run]
    if len(run) == 1:
        return []
    middle = len(run) // 2
    return [part for half in (run[:middle], run[middle:]) for part in _within(half, room, weights)]


def _needed(kept: list[tuple[str, ...]], trials: _Trials, target: float) -> list[tuple[str, ...]]:
    """Return the runs that the target needs; of the others, the earliest found are given back first."""
    for run in list(kept):
        others = [other for other in kept if other != run]
        if trials.of(others) <= target:
            kept = others
    return kept
