"""The choices a user has about the inputs of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from samdec_export.core.choices import Help, check
from samdec_export.core.options import SweepName

__all__ = ["CaseOptions", "SweepOptions"]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which inputs: a sweep over the ranges of a file, or recorded ones."""

    sweep: Annotated[SweepName, Help("How wide: quick for every change, full before a deployment.")] = "quick"
    seed: Annotated[int, Ge(0), Help("Seed of the generated inputs.")] = 0
    feeds: Annotated[Path | None, Help("Recorded inputs (.npz, or Polygraphy's .json) instead of a sweep.")] = None


@dataclass(frozen=True, kw_only=True)
class CaseOptions(SweepOptions):
    """The same, or one case of them.

    Raises:
        UsageError: The seed is below 0.
    """

    case: Annotated[str | None, Help("Run only this case.")] = None

    def __post_init__(self) -> None:
        check(self)
