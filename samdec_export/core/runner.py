"""What every engine looks like to the stages that feed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

__all__ = ["Array", "Feeds", "Outputs", "Runner", "TimedRunner"]

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Outputs: TypeAlias = dict[str, Array]


class Runner(Protocol):
    """Runs one graph on one engine."""

    @property
    def name(self) -> str:
        """Return what ran, for reports: engine and version."""

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name for the inputs by name."""


@runtime_checkable
class TimedRunner(Runner, Protocol):
    """One that can tell how long a run takes without the copies to a GPU and back that `run` makes."""

    def timer(self, feeds: Feeds) -> Callable[[], list[float]]:
        """Put inputs where they are needed and warm up; what it returns runs a few times and gives the seconds."""
