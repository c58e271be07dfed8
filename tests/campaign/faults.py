"""The table of graphs that are wrong on purpose, each by a small edit of an exported file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from edited_graph import Fault
from wrong_for_some import meanings, sizes
from wrong_numbers import biases, mix_ups, values

from samdec_export.core.runner import Feeds, Outputs, Runner

__all__ = ["FAULTS", "KINDS", "STATES"]

FAULTS: tuple[Fault, ...] = (*sizes(), *meanings(), *values(), *biases(), *mix_ups())
KINDS: tuple[str, ...] = tuple(dict.fromkeys(fault.kind for fault in FAULTS))


@dataclass
class _Stateful:
    """A runner whose answers depend on what it ran before: on `ran`, of the run at hand too."""

    runner: Runner
    change: Callable[[list[Feeds], list[Outputs]], Outputs]
    asked: list[Feeds] = field(default_factory=list)
    ran: list[Outputs] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        self.asked.append(feeds)
        self.ran.append(self.runner.run(feeds))
        return self.change(self.asked, self.ran)


def _moved(outputs: Outputs, by: float, wrong: bool = True) -> Outputs:
    return {name: array + np.float32(by) if wrong else array for name, array in outputs.items()}


def _stale(asked: list[Feeds], ran: list[Outputs]) -> Outputs:
    """Return the masks of an earlier run of the same sizes, if there is one."""
    alike = [one for one in ran[:-1] if all(one[name].shape == array.shape for name, array in ran[-1].items())]
    return (alike or ran)[-1]


def _state(change: Callable[[list[Feeds], list[Outputs]], Outputs]) -> Callable[[Runner], Runner]:
    return lambda runner: _Stateful(runner, change)


def _size(outputs: Outputs) -> int:
    return sum(array.size for array in outputs.values())


def _larger_before(asked: list[Feeds], ran: list[Outputs]) -> Outputs:
    return _moved(ran[-1], 1e-6, max(map(_size, ran)) > _size(ran[-1]))


def _others_before(asked: list[Feeds], ran: list[Outputs]) -> Outputs:
    return _moved(ran[-1], 0.01, len(ran) > 1 and _size(ran[-2]) != _size(ran[-1]))


def _nan_before(asked: list[Feeds], ran: list[Outputs]) -> Outputs:
    return _moved(ran[-1], 0.01, any(np.isnan(array).any() for feeds in asked[:-1] for array in feeds.values()))


STATES: dict[str, Callable[[Runner], Runner]] = {
    "answers drift": _state(lambda asked, ran: _moved(ran[-1], 1e-7 * len(ran))),
    "the first run is wrong": _state(lambda asked, ran: _moved(ran[-1], 0.01, len(ran) == 1)),
    "wrong from the tenth run on": _state(lambda asked, ran: _moved(ran[-1], 0.01, len(ran) >= 10)),
    "every seventh run is wrong": _state(lambda asked, ran: _moved(ran[-1], 0.01, len(ran) % 7 == 0)),
    "an earlier answer of the same sizes": _state(_stale),
    "a little wrong after a larger run": _state(_larger_before),
    "wrong after a run of another size": _state(_others_before),
    "wrong after NaN went in": _state(_nan_before),
}
