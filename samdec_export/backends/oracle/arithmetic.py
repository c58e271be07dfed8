"""ONNX operators that calculate, for the oracle: wide inputs, a wide result, which the caller rounds once.

Inputs of a narrow type come as float32, so whatever is accumulated here is accumulated in float32, as tensor cores and
the kernels of normalisation, softmax and reduction do. Integers and float32 come as they are. Nothing is clipped: what
a type cannot hold becomes infinite when the caller rounds.

Source: the ONNX operator specification, opsets 17 to 22.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from samdec_export.backends.oracle.node import Inputs, Node
from samdec_export.core.runner import Array

__all__ = ["ARITHMETIC", "erf"]

Arithmetic: TypeAlias = Callable[[Node, Inputs], Array]

CELLS, REACH, BLOCK = 256, 6, 1 << 15
"""erf is tabulated at this many points a unit, as far out as it differs from 1; elements in work at once."""

CENTRES: Final = np.arange(-REACH * CELLS, REACH * CELLS + 1) / CELLS
ERF_AT_CENTRES: Final = np.array([math.erf(centre) for centre in CENTRES])
SLOPE_AT_CENTRES: Final = 2 / math.sqrt(math.pi) * np.exp(-(CENTRES**2))


def erf(x: Array) -> NDArray[np.float64]:
    """Return the error function of every element, to about 1e-14.

    A Taylor series of five terms about the nearest of 3073 tabulated points. NumPy has no erf, and `math.erf` an
    element would take minutes where this takes a second.
    """
    clipped = np.clip(x.astype(np.float64), -REACH, REACH)
    cell = np.rint(np.nan_to_num(clipped + REACH) * CELLS).astype(np.intp)
    c = CENTRES[cell]
    h = clipped - c  # NaN stays NaN
    c2 = c * c
    series = 1 + h * (-c + h * ((2 * c2 - 1) / 3 + h * (c * (3 - 2 * c2) / 6)))
    out: NDArray[np.float64] = ERF_AT_CENTRES[cell] + SLOPE_AT_CENTRES[cell] * h * series
    return out


def _gelu(x: Array) -> Array:
    wide = x.astype(np.float64)
    out: Array = 0.5 * wide * (1 + erf(wide * math.sqrt(0.5)))
    return out


def _in_blocks(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply an elementwise float64 function a block at a time: what it makes on the way then stays in the cache."""
    flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
    for start in range(0, x.size, BLOCK):
        window = slice(start, start + BLOCK)
        out[window] = function(flat[window])
    return out.reshape(x.shape)


def _divide(dividend: Array, divisor: Array) -> Array:
    """Return a quotient; of integers, cut off towards zero."""
    if dividend.dtype.kind == "f":
        return np.asarray(dividend / divisor)
    return np.asarray((dividend - np.fmod(dividend, divisor)) // divisor)


def _power(base: Array, exponent: Array) -> Array:
    """Return a power; a square is taken as a product, which is exact to half a unit and many times faster."""
    if exponent.size == 1 and exponent.item() == 2:
        return np.square(base).reshape(np.broadcast_shapes(base.shape, exponent.shape))
    return np.asarray(np.power(base, exponent))


def _product(left: Array, right: Array) -> Array:
    """Return a matrix product; rows that share one right matrix become one large product."""
    if right.ndim == 2 and left.ndim > 2:
        rows = left.reshape(-1, left.shape[-1]) @ _for_blas(right)
        return rows.reshape(*left.shape[:-1], right.shape[-1])
    return np.asarray(np.matmul(_for_blas(left), _for_blas(right)))


def _for_blas(matrices: Array) -> Array:
    """Return matrices in an order that BLAS takes: NumPy multiplies all others by itself, slowly."""
    return matrices if matrices.itemsize in matrices.strides[-2:] else np.ascontiguousarray(matrices)


def _gemm(node: Node, inputs: Inputs) -> Array:
    left, right, *rest = inputs
    left = left.T if node.attributes.get("transA", 0) else left
    right = right.T if node.attributes.get("transB", 0) else right
    out = _product(left, right) * np.float32(node.attributes.get("alpha", 1.0))
    if rest and rest[0].size:
        out = out + rest[0] * np.float32(node.attributes.get("beta", 1.0))
    return np.asarray(out)


def _reduce(function: Callable[..., Array]) -> Arithmetic:
    def reduce(node: Node, inputs: Inputs) -> Array:
        """Reduce axes: the second input, or up to opset 17 an attribute; without any, all of them or (`noop`) none."""
        data = inputs[0]
        listed = inputs[1] if len(inputs) > 1 else np.array(node.attributes.get("axes", ()))
        if not listed.size and node.attributes.get("noop_with_empty_axes", 0):
            return data
        axes = tuple(int(axis) for axis in listed) or tuple(range(data.ndim))
        return np.asarray(function(data, axis=axes, keepdims=bool(node.attributes.get("keepdims", 1))))

    return reduce


def _softmax(node: Node, inputs: Inputs) -> Array:
    axis = node.attributes.get("axis", -1)
    powers = np.exp(inputs[0] - inputs[0].max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _layer_norm(node: Node, inputs: Inputs) -> Array:
    """Normalise with statistics in float32 (`stash_type` 1), where no square overflows, and round once, as kernels do.

    The specification's function body rounds once more, before it scales; no engine's kernel does.
    """
    x, scale, *rest = inputs
    first = node.attributes.get("axis", -1) % x.ndim
    axes = tuple(range(first, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    out = centred / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5))) * scale
    return np.asarray(out + rest[0] if rest and rest[0].size else out)


def _convolve(node: Node, inputs: Inputs) -> Array:
    """Convolve without padding: (B, I, h, w) and (O, I, y, x) -> (B, O, h', w')."""
    image, weight, *bias = inputs
    down, right = node.attributes.get("strides", (1, 1))
    windows = np.lib.stride_tricks.sliding_window_view(image, weight.shape[2:], axis=(2, 3))
    patches = windows[:, :, ::down, ::right].transpose(0, 2, 3, 1, 4, 5)  # (B, h', w', I, y, x)
    rows = patches.reshape(*patches.shape[:3], -1)  # (B, h', w', I*y*x)
    out = _product(rows, weight.reshape(len(weight), -1).T)  # (B, h', w', O)
    return np.moveaxis(out + bias[0] if bias and bias[0].size else out, -1, 1)


def _convolve_transposed(node: Node, inputs: Inputs) -> Array:
    """Spread by kernels that touch but do not overlap: (B, I, h, w) and (I, O, y, x) -> (B, O, h*y, w*x)."""
    image, weight, *bias = inputs
    if tuple(node.attributes.get("strides", (1, 1))) != weight.shape[2:]:
        raise ValueError("the strides are not the kernel's size")
    (batch, _, height, width), (_, out_channels, down, right) = image.shape, weight.shape
    rows = _product(np.moveaxis(image, 1, -1), weight.reshape(len(weight), -1))  # (B, h, w, O*y*x)
    cells = rows.reshape(batch, height, width, out_channels, down, right).transpose(0, 3, 1, 4, 2, 5)
    out = cells.reshape(batch, out_channels, height * down, width * right)
    return np.asarray(out + bias[0][:, None, None] if bias and bias[0].size else out)


def _resize(node: Node, inputs: Inputs) -> Array:
    """Interpolate linearly between half-pixel centres. The second input, a region, has no meaning in this mode."""
    data, _, scales, sizes = (*inputs, *[np.empty(0)] * 2)[:4]
    axes = node.attributes.get("axes", range(data.ndim))
    for index, axis in enumerate(axes):
        before = data.shape[axis]
        after = int(sizes[index]) if sizes.size else math.floor(before * float(scales[index]))
        ratio = after / before if sizes.size else float(scales[index])
        if ratio != 1:
            data = _stretch(data, axis, after, ratio)
    return data


def _stretch(data: Array, axis: int, after: int, ratio: float) -> Array:
    """Make one axis `after` long; positions beyond its ends take the end's value."""
    last = data.shape[axis] - 1
    position = np.clip((np.arange(after) + 0.5) / ratio - 0.5, 0, last)
    low = np.floor(position).astype(np.intp)
    shape = [after if index == axis % data.ndim else 1 for index in range(data.ndim)]
    weight = (position - low).astype(np.float32).reshape(shape)
    left = np.take(data, low, axis=axis)
    return np.asarray(left + (np.take(data, np.minimum(low + 1, last), axis=axis) - left) * weight)


def _range(start: Array, limit: Array, delta: Array) -> Array:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return np.asarray(start + np.arange(count) * delta)


def _clip(data: Array, low: Array, high: Array) -> Array:
    if low.size:
        data = np.maximum(data, low)
    return np.minimum(data, high) if high.size else data


ARITHMETIC: Final[dict[str, Arithmetic]] = {
    "Abs": lambda node, x: np.abs(x[0]),
    "Add": lambda node, x: x[0] + x[1],
    "Clip": lambda node, x: _clip(*(*x, np.empty(0), np.empty(0))[:3]),
    "Conv": _convolve,
    "ConvTranspose": _convolve_transposed,
    "Cos": lambda node, x: np.cos(x[0]),
    "Div": lambda node, x: _divide(x[0], x[1]),
    "Erf": lambda node, x: _in_blocks(erf, x[0]),
    "Exp": lambda node, x: np.exp(x[0]),
    "Floor": lambda node, x: np.floor(x[0]),
    "Gelu": lambda node, x: _in_blocks(_gelu, x[0]),
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda node, x: _product(x[0], x[1]),
    "Max": lambda node, x: np.maximum.reduce(np.broadcast_arrays(*x)),
    "Min": lambda node, x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "Mul": lambda node, x: x[0] * x[1],
    "Neg": lambda node, x: -x[0],
    "Pow": lambda node, x: _power(x[0], x[1]),
    "Range": lambda node, x: _range(*x),
    "Reciprocal": lambda node, x: 1 / x[0],
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceSum": _reduce(np.sum),
    "Relu": lambda node, x: np.maximum(x[0], 0),
    "Resize": _resize,
    "Sigmoid": lambda node, x: 1 / (1 + np.exp(-x[0])),
    "Sin": lambda node, x: np.sin(x[0]),
    "Softmax": _softmax,
    "Sqrt": lambda node, x: np.sqrt(x[0]),
    "Sub": lambda node, x: x[0] - x[1],
    "Tanh": lambda node, x: np.tanh(x[0]),
}
"""Operators whose result has the type of their first input."""
