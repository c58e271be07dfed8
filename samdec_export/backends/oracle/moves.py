"""ONNX operators that move, choose or name values, for the oracle: nothing is rounded, except by casts.

Source: the ONNX operator specification, opsets 17 to 22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from samdec_export.backends.oracle.node import Inputs, Node, widen
from samdec_export.core.runner import Array

__all__ = ["MOVES"]

Move: TypeAlias = Callable[[Node, Inputs], Array]


def _constant(node: Node, inputs: Inputs) -> Array:
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if name in node.attributes:
            return np.array(node.attributes[name], dtype)
    if "value_ints" in node.attributes:
        return np.array(node.attributes["value_ints"], np.int64)
    value: Array = node.attributes["value"]
    return value


def _constant_of_shape(node: Node, inputs: Inputs) -> Array:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(_ints(inputs[0]), value.reshape(()), value.dtype)


def _gather(node: Node, inputs: Inputs) -> Array:
    return np.asarray(np.take(inputs[0], inputs[1], axis=node.attributes.get("axis", 0)))


def _gather_elements(node: Node, inputs: Inputs) -> Array:
    """Gather elements; indices may be fewer than the data along every other axis as well."""
    data, indices = inputs
    axis = node.attributes.get("axis", 0) % data.ndim
    window = tuple(slice(None if at == axis else size) for at, size in enumerate(indices.shape))
    return np.take_along_axis(data[window], indices, axis=axis)


def _arg_max(node: Node, inputs: Inputs) -> Array:
    axis, keep = node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1))
    return np.asarray(np.argmax(widen(inputs[0]), axis=axis, keepdims=keep)).astype(np.int64)


def _reshape(node: Node, inputs: Inputs) -> Array:
    data, shape = inputs[0], _ints(inputs[1])
    if not node.attributes.get("allowzero", 0):
        shape = [size or data.shape[axis] for axis, size in enumerate(shape)]
    return data.reshape(shape)


def _space_to_depth(node: Node, inputs: Inputs) -> Array:
    """Move blocks of pixels into channels: (B, C, h*k, w*k) -> (B, k*k*C, h, w)."""
    side, (images, channels, height, width) = node.attributes["blocksize"], inputs[0].shape
    blocks = inputs[0].reshape(images, channels, height // side, side, width // side, side)
    return np.asarray(blocks.transpose(0, 3, 5, 1, 2, 4).reshape(images, -1, height // side, width // side))


def _depth_to_space(node: Node, inputs: Inputs) -> Array:
    """Move channels into blocks of pixels: (B, C*k*k or k*k*C by mode, h, w) -> (B, C, h*k, w*k)."""
    side, (images, depth, height, width) = node.attributes["blocksize"], inputs[0].shape
    channels = depth // side**2
    if node.attributes.get("mode", "DCR") == "CRD":
        blocks = inputs[0].reshape(images, channels, side, side, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        blocks = inputs[0].reshape(images, side, side, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
    return np.asarray(blocks.reshape(images, channels, height * side, width * side))


def _expand(node: Node, inputs: Inputs) -> Array:
    return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, tuple(_ints(inputs[1]))))


def _shape(node: Node, inputs: Inputs) -> Array:
    window = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    return np.array(inputs[0].shape[window], np.int64)


def _slice(node: Node, inputs: Inputs) -> Array:
    data, starts, ends, axes, steps = (*inputs, *[np.empty(0)] * 2)[:5]
    where = _ints(axes) if axes.size else range(len(starts))
    strides = _ints(steps) if steps.size else [1] * len(starts)
    window = [slice(None)] * data.ndim
    for axis, start, end, step in zip(where, _ints(starts), _ints(ends), strides, strict=True):
        before_first = step < 0 and end < -data.shape[axis]  # Python has no number for it
        window[axis] = slice(start, None if before_first else end, step)
    return data[tuple(window)]


def _squeeze(node: Node, inputs: Inputs) -> Array:
    axes = tuple(_ints(inputs[1])) if len(inputs) > 1 and inputs[1].size else None
    return np.squeeze(inputs[0], axis=axes)


def _ints(array: Array) -> list[int]:
    return [int(value) for value in array.reshape(-1)]


MOVES: Final[dict[str, Move]] = {
    "And": lambda node, x: np.logical_and(x[0], x[1]),
    "ArgMax": _arg_max,
    "Cast": lambda node, x: widen(x[0]).astype(node.attributes["to"]),
    "CastLike": lambda node, x: widen(x[0]).astype(x[1].dtype),
    "Concat": lambda node, x: np.concatenate(x, axis=node.attributes["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Equal": lambda node, x: x[0] == x[1],
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Greater": lambda node, x: x[0] > x[1],
    "GreaterOrEqual": lambda node, x: x[0] >= x[1],
    "Identity": lambda node, x: x[0],
    "Less": lambda node, x: x[0] < x[1],
    "LessOrEqual": lambda node, x: x[0] <= x[1],
    "Not": lambda node, x: np.logical_not(x[0]),
    "Or": lambda node, x: np.logical_or(x[0], x[1]),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Transpose": lambda node, x: np.transpose(x[0], node.attributes.get("perm")),
    "Unsqueeze": lambda node, x: np.expand_dims(x[0], tuple(_ints(x[1]))),
    "Where": lambda node, x: np.where(x[0], x[1], x[2]),
}
"""Operators that give their result its type themselves."""
