"""The choices a user has about an export: where it comes from, and the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from annotated_types import Ge, Le

from samdec_export.core.choices import Help, Text, check
from samdec_export.core.errors import UsageError
from samdec_export.core.signature import Dim

__all__ = [
    "ARRANGEMENTS",
    "BENCH_RUNNERS",
    "GRAPHS",
    "MASKS",
    "OPSETS",
    "ArrangementName",
    "BenchRunner",
    "ExportOptions",
    "GraphName",
    "GraphOptions",
    "MasksMode",
    "Provider",
    "SweepName",
    "parse_range",
    "parse_runner",
]

GraphName: TypeAlias = Literal["decoder", "prompts", "meta"]
MasksMode: TypeAlias = Literal["multi", "single", "all", "best"]
SweepName: TypeAlias = Literal["quick", "full"]
ArrangementName: TypeAlias = Literal["fused", "reference"]
BenchRunner: TypeAlias = Literal["ort", "ort-cuda", "eager", "compile", "trt"]
Provider: TypeAlias = Literal["cpu", "cuda"]

GRAPHS: tuple[GraphName, ...] = get_args(GraphName)
MASKS: tuple[MasksMode, ...] = get_args(MasksMode)
ARRANGEMENTS: tuple[ArrangementName, ...] = get_args(ArrangementName)
BENCH_RUNNERS: tuple[BenchRunner, ...] = get_args(BenchRunner)
OPSETS: tuple[int, ...] = (17, 18, 19, 20)

CONTRACT_MASKS: dict[GraphName, MasksMode] = {"decoder": "multi", "prompts": "multi", "meta": "all"}
"""What each graph returns unless asked otherwise; segment-anything's own ONNX file returns every mask."""


def parse_range(text: str, name: str = "ranges") -> Dim:
    """Read `AXIS=MIN:OPT:MAX`, such as `prompts=1:8:16`; UsageError names the choice that it was given to."""
    axis, _, sizes = text.partition("=")
    try:
        low, usual, high = (int(size) for size in sizes.split(":"))
        return Dim(name=axis.strip(), min=low, opt=usual, max=high)
    except ValueError as error:
        raise UsageError(
            f"{{{name}}} {text!r} is not AXIS=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX.", "Write such as prompts=1:8:16."
        ) from error


def parse_runner(text: str) -> BenchRunner:
    """Return the runner of that name; raise UsageError where there is none."""
    for runner in BENCH_RUNNERS:
        if runner == text:
            return runner
    raise UsageError(f"There is no runner {text!r}.", f"Known: {', '.join(BENCH_RUNNERS)}.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Where an export comes from, and where it goes."""

    model: Annotated[str | None, Help("Model, where the checkpoint does not tell; see: models.")] = None
    checkpoint: Annotated[Path | None, Help("Checkpoint: .pt, .pth, .safetensors or a Hugging Face folder.")] = None
    out: Annotated[Path, Help("Folder to write to.")] = Path("artifacts")


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Which graph, and in which form.

    `multi` (3 masks) and `single` (1) are the decoder's own `multimask_output`; `all` is every mask; `best` is one
    mask, chosen as segment-anything's ONNX file chooses it. Pydantic reads defaults from the class, so it has no slots.

    Raises:
        UsageError: A choice is out of its bounds or contradicts another, or an axis has two ranges.
    """

    graph: Annotated[GraphName, Help("Graph contract.")] = "decoder"
    masks: Annotated[MasksMode | None, Help("Masks to return.", usual="multi; meta: all")] = None
    mask_input: Annotated[bool, Help("prompts: each prompt may bring a mask.")] = False
    dynamic_grid: Annotated[bool, Help("Dynamic height and width of the image embedding.")] = False
    arrangement: Annotated[
        ArrangementName, Help("fused: less work, same function. reference: as its authors wrote it.")
    ] = "fused"
    ranges: Annotated[
        tuple[Dim, ...],
        Text(parse_range, "AXIS=MIN:OPT:MAX", many=True),
        Help("Sizes of a dynamic axis to arrange, validate and build for."),
    ] = ()
    opset: Annotated[int, Ge(OPSETS[0]), Le(OPSETS[-1]), Help("ONNX opset.")] = 20

    def __post_init__(self) -> None:
        check(self)
        if self.mask_input and self.graph != "prompts":
            raise UsageError(
                f"{{mask_input}} is a choice of the prompts graph, not of {self.graph}.",
                "Leave it out (decoder has no mask input, meta always has one), or choose {graph=prompts}.",
            )
        names = [axis.name for axis in self.ranges]
        if len({*names}) < len(names):
            raise UsageError(f"An axis has two ranges: {', '.join(names)}.", "Give each axis one range.")

    @property
    def masks_mode(self) -> MasksMode:
        """Return `masks`, or what the contract says where it is None."""
        return self.masks or CONTRACT_MASKS[self.graph]
