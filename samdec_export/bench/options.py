"""The choices a user has about a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from samdec_export.core.choices import Count, Counts, Help, check

__all__ = ["BenchOptions"]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is run, and how often: every combination of sizes.

    Raises:
        UsageError: A number is below 1, or there is none.
    """

    images: Annotated[Counts, Help("Images per run.")] = (1,)
    prompts: Annotated[Counts, Help("Prompts per image.")] = (1, 8)
    points: Annotated[Counts, Help("Points per prompt.")] = (2,)
    threads: Annotated[Count, Help("Threads of each candidate.")] = 2
    repeats: Annotated[Count, Help("Rounds to time.")] = 7

    def __post_init__(self) -> None:
        check(self)
