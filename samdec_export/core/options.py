"""The choices a user has about the graph, in one list for every stage and the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.errors import UsageError
from samdec_export.core.signature import Dim

__all__ = [
    "ARRANGEMENTS",
    "BENCH_RUNNERS",
    "DEFAULT_MARGIN",
    "DEFAULT_OPSET",
    "GRAPHS",
    "MASKS",
    "OPSETS",
    "ArrangementName",
    "BenchRunner",
    "Conversion",
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
DEFAULT_OPSET = 20
DEFAULT_MARGIN = 4.0
"""How many times below a type's largest number a measured tensor must stay: an audit sees some inputs, not all."""

CONTRACT_MASKS: dict[GraphName, MasksMode] = {"decoder": "multi", "prompts": "multi", "meta": "all"}
"""What each graph returns unless asked otherwise; segment-anything's own ONNX file returns every mask."""


def parse_range(text: str, option: str = "--range") -> Dim:
    """Read `AXIS=MIN:OPT:MAX`, such as `prompts=1:8:16`.

    Args:
        text: What was given.
        option: To which option, for the message.

    Raises:
        UsageError: It is not that.
    """
    name, _, sizes = text.partition("=")
    try:
        low, usual, high = (int(size) for size in sizes.split(":"))
        return Dim(name=name.strip(), min=low, opt=usual, max=high)
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is not AXIS=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX.", "Write such as prompts=1:8:16."
        ) from error


def parse_runner(text: str) -> BenchRunner:
    """The runner of that name.

    Raises:
        UsageError: There is none.
    """
    for runner in BENCH_RUNNERS:
        if runner == text:
            return runner
    raise UsageError(f"There is no runner {text!r}.", f"Known: {', '.join(BENCH_RUNNERS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """Which graph, and in which form.

    Args:
        graph: The contract.
        masks: `multi` (3 masks) and `single` (1) are the decoder's own `multimask_output`; `all` is every mask;
            `best` is one mask, chosen as segment-anything's ONNX file chooses it. None: the contract's usual one.
        mask_input: `prompts` only: each prompt may bring a mask.
        dynamic_grid: Height and width of the image embedding are dynamic.
        arrangement: `fused` does less work for the same function; `reference` is the definition as written.
        ranges: Dynamic axes whose sizes differ from the contract's usual ones: the graph is validated over them and
            arranged for their `opt`.

    Raises:
        UsageError: `mask_input` for a graph that has no such choice, or two ranges for an axis.
    """

    graph: GraphName = "decoder"
    masks: MasksMode | None = None
    mask_input: bool = False
    dynamic_grid: bool = False
    arrangement: ArrangementName = "fused"
    ranges: tuple[Dim, ...] = ()

    def __post_init__(self) -> None:
        if self.mask_input and self.graph != "prompts":
            raise UsageError(
                f"--mask-input is a choice of the prompts graph, not of {self.graph}.",
                "Leave it out (decoder has no mask input, meta always has one), or add --graph prompts.",
            )
        names = [axis.name for axis in self.ranges]
        if len({*names}) < len(names):
            raise UsageError(f"An axis has two ranges: {', '.join(names)}.", "Give each axis one --range.")

    @property
    def masks_mode(self) -> MasksMode:
        """`masks`, or what the contract says where it is None."""
        return self.masks or CONTRACT_MASKS[self.graph]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is wanted.

    Args:
        precision: fp16 or bf16.
        io: The precision of the graph's inputs and outputs.
        keep: Patterns of nodes or operators that stay in fp32.
        max_flips: The share of mask pixels that may flip; more fp32 nodes are searched for until it is met.
        margin: How many times below the largest number a measured tensor must stay.
        protect: Keep in fp32 what the rules and the measured ranges call for. Without it only `keep` is kept.
        all_products: No matrix product stays in fp32, not even those of the head that predicts IoUs; where one has
            to, the conversion fails. TensorRT-RTX multiplies no fp32 matrices on Turing (sm75).

    Raises:
        UsageError: They contradict each other.
    """

    precision: LowPrecision
    io: Precision = "fp32"
    keep: tuple[str, ...] = ()
    max_flips: float | None = None
    margin: float = DEFAULT_MARGIN
    protect: bool = True
    all_products: bool = False

    def __post_init__(self) -> None:
        if self.io not in ("fp32", self.precision) or self.io == "bf16":
            raise UsageError(
                f"--io {self.io} does not go with a graph in {self.precision}.",
                "Inputs and outputs are fp32, or fp16 with --fp16; NumPy has no bf16.",
            )
        if self.max_flips is not None and not 0 <= self.max_flips < 1:
            raise UsageError(f"--max-flips {self.max_flips:g} is not a share.", "Write such as 0.001.")
        if not self.margin >= 1:
            raise UsageError(
                f"--margin {self.margin:g} is below 1.", f"1 uses the whole range; {DEFAULT_MARGIN:g} is the default."
            )
        if self.all_products and self.max_flips is not None:
            raise UsageError(
                "--max-flips finds products to keep in fp32, and --all-products keeps none.", "Leave one of them out."
            )

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as a record holds it."""
        return {**asdict(self), "keep": [*self.keep]}
