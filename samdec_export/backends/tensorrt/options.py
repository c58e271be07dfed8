"""The choices a user has about an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from annotated_types import Ge, Le

from samdec_export.core.choices import Count, Help, Text, check
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.options import parse_range
from samdec_export.core.packages import EngineName
from samdec_export.core.signature import Dim

__all__ = [
    "DEFAULT_TARGETS",
    "OF_ONE_ENGINE",
    "RTX_TARGETS",
    "BuildOptions",
    "EngineName",
    "EngineOptions",
    "Profile",
    "Target",
    "parse_profile",
    "parse_targets",
    "profile_for",
]

Profile: TypeAlias = tuple[Dim, ...]

Target: TypeAlias = Literal["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]

RTX_TARGETS: Final[tuple[Target, ...]] = get_args(Target)
"""GPU generations that TensorRT-RTX builds for, oldest first."""

DEFAULT_TARGETS: Final[tuple[Target, ...]] = ("sm80", "sm86", "sm89", "sm120")
"""Ampere, Ada and Blackwell in one file; Turing (sm75) takes fp16 only."""


def parse_targets(text: str, name: str = "targets") -> tuple[Target, ...]:
    """Read a list such as `sm86,sm89`; oldest first, each once.

    Raises:
        UsageError: One is not known, or there is none.
    """
    names = {part.strip().lower() for part in text.split(",")}
    unknown = sorted(names - {*RTX_TARGETS})
    if unknown:
        raise UsageError(
            f"{{{name}}} {text!r}: TensorRT-RTX does not build for {', '.join(map(repr, unknown))}.",
            f"It builds for {', '.join(RTX_TARGETS)}.",
        )
    return tuple(target for target in RTX_TARGETS if target in names)


def parse_profile(text: str, name: str = "profiles") -> Profile:
    """Read ranges such as `batch=1:1:64 points=1:2:16`.

    Raises:
        UsageError: One is not that, or an axis has two.
    """
    profile = tuple(parse_range(part, name) for part in text.split())
    names = [dim.name for dim in profile]
    if not names or len({*names}) < len(names):
        raise UsageError(
            f"{{{name}}} {text!r} does not give each axis one range.", "Write such as 'batch=1:1:64 points=1:2:16'."
        )
    return profile


OF_ONE_ENGINE: Final[dict[str, EngineName]] = {
    "targets": "rtx",
    "timing_cache": "tensorrt",
    "hardware_compat": "tensorrt",
}
"""Choices that only one of the engines has."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What is wanted of an engine, whichever it is.

    An axis that a profile leaves out keeps its range; without profiles there is one over the ranges of the graph.
    """

    targets: Annotated[
        tuple[str, ...],
        Text(parse_targets),
        Help("rtx: GPU generations, such as sm86,sm89.", usual="this GPU's, or sm80 to sm120"),
    ] = ()
    profiles: Annotated[
        tuple[Profile, ...],
        Text(parse_profile, "'batch=1:1:64 points=1:2:16'", many=True),
        Help("Sizes to tune for, each time a profile."),
    ] = ()
    workspace: Annotated[Count | None, Help("Most scratch memory of a layer, MB.", usual="the whole GPU")] = None
    opt_level: Annotated[
        int | None, Ge(0), Le(5), Help("How long to build for a quicker engine.", usual="the engine's own")
    ] = None
    timing_cache: Annotated[
        Path | None, Help("tensorrt: file of measured kernels, read if it is there and written.")
    ] = None
    hardware_compat: Annotated[bool, Help("tensorrt: the engine runs on any GPU since Ampere.")] = False
    version_compat: Annotated[bool, Help("Later versions of the engine can run it.")] = False
    strip_weights: Annotated[bool, Help("Leave the weights out; they are put back by refitting.")] = False
    refit: Annotated[bool, Help("Weights can be changed later.")] = False
    tf32: Annotated[bool, Help("Multiply fp32 matrices with 10 bits of mantissa.")] = False


@dataclass(frozen=True, kw_only=True)
class BuildOptions(EngineOptions):
    """What is wanted of a build.

    Raises:
        UsageError: A number is out of its bounds.
    """

    engine: Annotated[EngineName | None, Help("Engine.", usual="what can build here")] = None

    def __post_init__(self) -> None:
        check(self)

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
    raise EngineError(f"The engine has no profile for {asked}: it holds {held}.", "Build it again with {profiles}.")
