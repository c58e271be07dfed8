"""The one list of precisions. Precision is a property of the graph's tensors, never of a builder's flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["FORMATS", "PRECISIONS", "FloatFormat", "LowPrecision", "Precision"]

LowPrecision: TypeAlias = Literal["fp16", "bf16"]
Precision: TypeAlias = Literal["fp32", LowPrecision]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat:
    """A floating-point type: what it can hold (IEEE 754; bfloat16: fp32 cut to 16 bits).

    Args:
        dtype: Its name in ONNX and NumPy.
        largest: The largest finite magnitude; beyond it is infinity.
        smallest_normal: Below this magnitude precision is lost.
        epsilon: The distance from 1 to the next number.
    """

    dtype: str
    largest: float
    smallest_normal: float
    epsilon: float


FORMATS: Final[dict[Precision, FloatFormat]] = {
    "fp32": FloatFormat(
        dtype="float32", largest=(2 - 2.0**-23) * 2.0**127, smallest_normal=2.0**-126, epsilon=2.0**-23
    ),
    "fp16": FloatFormat(dtype="float16", largest=65504.0, smallest_normal=2.0**-14, epsilon=2.0**-10),
    "bf16": FloatFormat(dtype="bfloat16", largest=(2 - 2.0**-7) * 2.0**127, smallest_normal=2.0**-126, epsilon=2.0**-7),
}
