"""The one table of element types: a row each, and so for a precision, which is a property of a graph's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["DTYPES", "FORMATS", "PRECISIONS", "ElementType", "FloatFormat", "LowPrecision", "Precision"]

LowPrecision: TypeAlias = Literal["fp16", "bf16"]
Precision: TypeAlias = Literal["fp32", LowPrecision]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """What a tensor's elements are.

    `dtype` is its name in ONNX and NumPy (ml_dtypes where NumPy has none), `onnx` its number in TensorProto.DataType,
    `tensorrt` its name in TensorRT's DataType, `triton` in Triton's model configuration; empty where it has none.
    """

    dtype: str
    title: str
    onnx: int
    bytes: int
    floating: bool
    tensorrt: str = ""
    triton: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat(ElementType):
    """A floating-point type that graphs are made in, and what it can hold (IEEE 754; bfloat16: fp32 cut to 16 bits).

    `largest` is the largest finite magnitude; below `smallest_normal` precision is lost; `epsilon` is the distance from
    1 to the next number.
    """

    precision: Precision
    largest: float
    smallest_normal: float
    epsilon: float


TABLE: Final[tuple[ElementType, ...]] = (
    FloatFormat(
        dtype="float32",
        title="fp32",
        onnx=1,
        bytes=4,
        floating=True,
        tensorrt="FLOAT",
        triton="TYPE_FP32",
        precision="fp32",
        largest=(2 - 2.0**-23) * 2.0**127,
        smallest_normal=2.0**-126,
        epsilon=2.0**-23,
    ),
    FloatFormat(
        dtype="float16",
        title="fp16",
        onnx=10,
        bytes=2,
        floating=True,
        tensorrt="HALF",
        triton="TYPE_FP16",
        precision="fp16",
        largest=65504.0,
        smallest_normal=2.0**-14,
        epsilon=2.0**-10,
    ),
    FloatFormat(
        dtype="bfloat16",
        title="bf16",
        onnx=16,
        bytes=2,
        floating=True,
        tensorrt="BF16",
        triton="TYPE_BF16",
        precision="bf16",
        largest=(2 - 2.0**-7) * 2.0**127,
        smallest_normal=2.0**-126,
        epsilon=2.0**-7,
    ),
    ElementType(dtype="float64", title="fp64", onnx=11, bytes=8, floating=True, triton="TYPE_FP64"),
    ElementType(dtype="float8_e4m3fn", title="fp8", onnx=17, bytes=1, floating=True, tensorrt="FP8"),
    ElementType(dtype="float8_e5m2", title="fp8", onnx=19, bytes=1, floating=True),
    ElementType(dtype="int64", title="int64", onnx=7, bytes=8, floating=False, tensorrt="INT64", triton="TYPE_INT64"),
    ElementType(dtype="int32", title="int32", onnx=6, bytes=4, floating=False, tensorrt="INT32", triton="TYPE_INT32"),
    ElementType(dtype="uint8", title="uint8", onnx=2, bytes=1, floating=False, tensorrt="UINT8", triton="TYPE_UINT8"),
    ElementType(dtype="bool", title="bool", onnx=9, bytes=1, floating=False, tensorrt="BOOL", triton="TYPE_BOOL"),
)

DTYPES: Final[dict[str, ElementType]] = {row.dtype: row for row in TABLE}
FORMATS: Final[dict[Precision, FloatFormat]] = {row.precision: row for row in TABLE if isinstance(row, FloatFormat)}
