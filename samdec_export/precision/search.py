"""A small set of nodes to keep in fp32, found by what keeping them buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["SearchResult", "Unit", "search"]

SEGMENTS: Final = 8
"""Into how many runs of nodes the graph is cut at first."""

SHARE_OF_GAIN: Final = 0.7
"""A part stands for the whole if it brings this much of what the whole brings."""

_Trial = Callable[[Sequence[tuple[str, ...]]], float]
"""Gives the measure with these runs of nodes kept."""


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
    nodes: Sequence[str],
    measure: Callable[[frozenset[str]], float],
    target: float,
    *,
    weights: Mapping[str, float],
    budget: float,
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
    measured: dict[frozenset[str], float] = {}

    def trial(runs: Sequence[tuple[str, ...]]) -> float:
        together = frozenset(node for run in runs for node in run)
        if together not in measured:
            measured[together] = measure(together)
        return measured[together]

    kept: list[tuple[str, ...]] = []
    before = after = trial(())
    while after > target:
        room = budget - _cost(kept, weights)
        left = [node for node in nodes if not any(node in run for run in kept)]
        best = _best_run(left, kept, trial, room, weights)
        if best is None:
            break
        kept.append(best)
        after = trial(kept)
    enough = max(target, after)
    for run in list(kept):  # what the target does not need is given back, the earliest found first
        others = [other for other in kept if other != run]
        if trial(others) <= enough:
            kept = others
    after = trial(kept)
    units = tuple(Unit(nodes=run, without=trial([other for other in kept if other != run])) for run in kept)
    return SearchResult(units=units, before=before, after=after, target=target, measured=len(measured))


def _cost(runs: Sequence[tuple[str, ...]], weights: Mapping[str, float]) -> float:
    return sum(weights.get(node, 0.0) for run in runs for node in run)


def _best_run(
    left: list[str], kept: list[tuple[str, ...]], trial: _Trial, room: float, weights: Mapping[str, float]
) -> tuple[str, ...] | None:
    """Return the run that brings most, as short as it can be; None if none brings anything."""
    now = trial(kept)
    size = max(1, -(-len(left) // SEGMENTS))
    runs = [tuple(left[start : start + size]) for start in range(0, len(left), size)]
    affordable = [part for run in runs for part in _within(run, room, weights)]
    gains = {run: now - trial([*kept, run]) for run in affordable}
    best = max(gains, key=lambda run: gains[run], default=None)
    if best is None or gains[best] <= 0:
        return None
    while len(best) > 1:
        halves = best[: len(best) // 2], best[len(best) // 2 :]
        half, gain = max(((half, now - trial([*kept, half])) for half in halves), key=lambda item: item[1])
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
