"""The choices a user has about a conversion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from annotated_types import Ge, Lt

from samdec_export.core.choices import Help, Words, check
from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.errors import UsageError

__all__ = ["Conversion", "ConvertOptions"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What every conversion takes, whatever its precision."""

    io: Annotated[Precision, Help("Precision of the graph's inputs and outputs.")] = "fp32"
    keep_fp32: Annotated[Words, Help("Nodes or operators that stay in fp32, such as Softmax.")] = ()
    max_flips: Annotated[
        float | None,
        Ge(0),
        Lt(1),
        Help("Share of mask pixels that may flip, such as 0.001; more nodes stay in fp32 until it is met."),
    ] = None
    # An audit sees some inputs and not all: 4 leaves room for two bits more.
    margin: Annotated[
        float, Ge(1), Help("How many times below the largest number a measured tensor must stay; 1 uses all of it.")
    ] = 4.0
    protect: Annotated[
        bool, Help("Keep in fp32 what rules and measured ranges call for; without it only {keep_fp32} is kept.")
    ] = True
    all_matmuls: Annotated[
        bool, Help("Keep no matmul in fp32, as engines for sm75 need; else it fails.", former="all_products")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Conversion(ConvertOptions):
    """What is wanted of a conversion to `precision`.

    Raises:
        UsageError: A choice is out of its bounds, or two contradict each other.
    """

    precision: LowPrecision

    def __post_init__(self) -> None:
        check(self)
        if self.io not in ("fp32", self.precision) or self.io == "bf16":
            raise UsageError(
                f"{{io={self.io}}} does not go with a graph in {self.precision}.",
                "Inputs and outputs are fp32, or fp16 with {precision=fp16}; NumPy has no bf16.",
            )
        if self.all_matmuls and self.max_flips is not None:
            raise UsageError(
                "{max_flips} finds matmuls to keep in fp32, and {all_matmuls} keeps none.", "Leave one of them out."
            )

    def to_json(self) -> dict[str, Any]:
        """Return what was asked for, as a record holds it."""
        return {**asdict(self), "keep_fp32": [*self.keep_fp32]}
