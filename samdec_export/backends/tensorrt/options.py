"""The choices a user has about an engine, in one list for the flow, the backend and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.options import parse_range
from samdec_export.core.packages import EngineName
from samdec_export.core.signature import Dim

__all__ = [
    "DEFAULT_TARGETS",
    "RTX_TARGETS",
    "BuildOptions",
    "EngineName",
    "Profile",
    "parse_profile",
    "parse_targets",
    "profile_for",
]

Profile: TypeAlias = tuple[Dim, ...]

RTX_TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPU generations that TensorRT-RTX builds for, oldest first."""

DEFAULT_TARGETS: Final = ("sm80", "sm86", "sm89", "sm120")
"""Ampere, Ada and Blackwell in one file; Turing (sm75) takes fp16 only."""

HIGHEST_LEVEL: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What is wanted of an engine.

    Args:
        engine: TensorRT or TensorRT-RTX; None for what can build here.
        targets: GPU generations, such as sm89; empty for the usual ones.
        profiles: Ranges to tune for, an axis that a profile leaves out keeps its range; empty for one profile over
            the ranges of the graph.
        workspace: Scratch memory of a layer, in MB; None for the engine's own limit, which is the whole GPU.
        opt_level: 0 (a quick build) to 5 (a quick engine); None for the engine's own.
        timing_cache: A file of measured kernels, read if it is there and written.
        hardware_compat: The engine runs on every GPU from Ampere on.
        version_compat: The engine runs on later versions of the same major version.
        strip_weights: Leave the weights out; they are put back by refitting.
        refit: Weights can be changed in the built engine.
        tf32: Multiply fp32 matrices with 10 bits of mantissa.

    Raises:
        UsageError: A number is out of its range.
    """

    engine: EngineName | None = None
    targets: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    workspace: int | None = None
    opt_level: int | None = None
    timing_cache: Path | None = None
    hardware_compat: bool = False
    version_compat: bool = False
    strip_weights: bool = False
    refit: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1:
            raise UsageError(f"--workspace {self.workspace} is not a size in MB.", "Write such as 2048.")
        if self.opt_level is not None and not 0 <= self.opt_level <= HIGHEST_LEVEL:
            raise UsageError(f"--opt-level {self.opt_level} is not 0 to {HIGHEST_LEVEL}.", "3 is the usual one.")

    @property
    def settings(self) -> dict[str, Any]:
        """Return what a sidecar says of the build, targets and profiles apart."""
        return {
            "strongly_typed": True,
            "tf32": self.tf32,
            "workspace_mb": self.workspace,
            "opt_level": self.opt_level,
            "timing_cache": self.timing_cache and self.timing_cache.name,
            "hardware_compat": self.hardware_compat,
            "version_compat": self.version_compat,
            "strip_weights": self.strip_weights,
            "refit": self.refit,
        }


def profile_for(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int:
    """Return the index of the first profile that holds these sizes; 0 where a graph has no dynamic axis and no profile.

    Raises:
        EngineError: None does; the message has the ranges.
    """
    for index, profile in enumerate(profiles):
        if all(dim.min <= sizes[dim.name] <= dim.max for dim in profile):
            return index
    if not profiles:
        return 0
    asked = ", ".join(f"{name}={size}" for name, size in sizes.items())
    held = "; ".join(", ".join(f"{dim.name} {dim.min} to {dim.max}" for dim in profile) for profile in profiles)
    raise EngineError(f"The engine has no profile for {asked}: it holds {held}.", "Build it again with --profile.")


def parse_targets(text: str) -> tuple[str, ...]:
    """Read a list such as `sm86,sm89`; oldest first, each once.

    Raises:
        UsageError: One is not known, or there is none.
    """
    names = {part.strip().lower() for part in text.split(",")}
    unknown = sorted(names - {*RTX_TARGETS})
    if unknown:
        raise UsageError(
            f"--targets {text!r}: TensorRT-RTX does not build for {', '.join(map(repr, unknown))}.",
            f"It builds for {', '.join(RTX_TARGETS)}.",
        )
    return tuple(target for target in RTX_TARGETS if target in names)


def parse_profile(text: str) -> Profile:
    """Read ranges such as `batch=1:1:64 points=1:2:16`.

    Raises:
        UsageError: One is not that, or an axis has two.
    """
    profile = tuple(parse_range(part, "--profile") for part in text.split())
    names = [dim.name for dim in profile]
    if not names or len({*names}) < len(names):
        raise UsageError(
            f"--profile {text!r} does not give each axis one range.", "Write such as 'batch=1:1:64 points=1:2:16'."
        )
    return profile
