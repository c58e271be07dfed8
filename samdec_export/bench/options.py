"""The choices a user has about a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from annotated_types import MinLen

from samdec_export.core.choices import Count, Help, Text, check
from samdec_export.core.errors import UsageError

__all__ = ["BenchOptions", "parse_counts"]


def parse_counts(text: str, name: str) -> tuple[int, ...]:
    """Read a list of sizes, such as `1,8,64`; raise UsageError unless each is a positive whole number."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{{{name}}} {text!r} is not a list of positive whole numbers.", "Write such as 1,8,64.")
    return tuple(map(int, parts))


Counts: TypeAlias = Annotated[tuple[Count, ...], MinLen(1), Text(parse_counts)]


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
