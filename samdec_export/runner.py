"""What every engine looks like to the stages that feed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

__all__ = ["Array", "Feeds", "Outputs", "Runner"]

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Outputs: TypeAlias = dict[str, Array]


class Runner(Protocol):
    """Runs one graph on one engine."""

    @property
    def name(self) -> str:
        """What ran, for reports: engine and version."""
        ...

    def run(self, feeds: Feeds) -> Outputs:
        """The outputs by name for the inputs by name."""
        ...
