"""What the oracle reads of an ONNX file: plain values, with everything refused that it would not compute rightly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from samdec_export.backends.oracle.arithmetic import ARITHMETIC
from samdec_export.backends.oracle.moves import MOVES
from samdec_export.backends.oracle.node import Node
from samdec_export.core.dtypes import DTYPES
from samdec_export.core.errors import GraphError
from samdec_export.core.runner import Array

__all__ = ["GraphFile", "read_graph"]

OPSETS: Final = range(17, 23)
"""Opsets in which the operators mean what is implemented here; 22 is the first that convolves in bf16."""

TYPES: Final = frozenset(np.dtype(row.dtype) for row in DTYPES.values() if row.title != "fp8")

ONLY: Final[dict[str, dict[str, tuple[Any, ...]]]] = {
    "ArgMax": {"select_last_index": (0,)},
    "Conv": {"auto_pad": ("NOTSET", "VALID"), "dilations": ([1, 1],), "group": (1,), "pads": ([0, 0, 0, 0],)},
    "ConvTranspose": {
        "auto_pad": ("NOTSET",),
        "dilations": ([1, 1],),
        "group": (1,),
        "output_padding": ([0, 0],),
        "output_shape": (),
        "pads": ([0, 0, 0, 0],),
    },
    "Gelu": {"approximate": ("none",)},
    "LayerNormalization": {"stash_type": (1,)},
    "Resize": {
        "antialias": (0,),
        "coordinate_transformation_mode": ("half_pixel",),
        "exclude_outside": (0,),
        "keep_aspect_ratio_policy": ("stretch",),
        "mode": ("linear",),
    },
}
"""The only values of an attribute that are implemented, where others exist."""

REQUIRED: Final = {"Resize": ("mode",)}
"""Attributes whose default is not implemented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
    """The graph of an ONNX file.

    Args:
        nodes: In the file's order.
        constants: The initialisers.
        inputs: What is to be fed, each with its axes by name or size.
        outputs: Names.
        declared: The type of every tensor that the file gives one, inputs and outputs among them.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: dict[str, tuple[str | int, ...]]
    outputs: tuple[str, ...]
    declared: dict[str, np.dtype[Any]]


def read_graph(path: Path) -> GraphFile:
    """Read an ONNX file.

    Raises:
        GraphError: It is not ONNX, of another opset, or holds what is not implemented.
    """
    graph = _load(path)
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    values = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    inputs = [value.name for value in graph.input if value.name not in constants]
    return GraphFile(
        nodes=tuple(_node(proto) for proto in graph.node),
        constants=constants,
        inputs={name: _axes(name, values[name].shape) for name in inputs},
        outputs=tuple(value.name for value in graph.output),
        declared={name: _dtype(tensor.elem_type) for name, tensor in values.items() if tensor.elem_type},
    )


def _load(path: Path) -> onnx.GraphProto:
    try:
        model = onnx.load(path)
    except OSError as error:
        raise GraphError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except Exception as error:  # onnx and protobuf share no base for what a damaged file makes them raise
        raise GraphError(f"{path} is not an ONNX file, or is damaged.", "Export it again.") from error
    if not model.graph.node:
        raise GraphError(f"{path} is not an ONNX file: it holds no graph.", "Export it again.")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise GraphError(
            f"{path} is of opset {opset}; the oracle knows {OPSETS[0]} to {OPSETS[-1]}.", "Export it again."
        )
    return model.graph


def _node(proto: onnx.NodeProto) -> Node:
    """Return a node of the file.

    Raises:
        GraphError: It is not implemented, or not with these attributes or outputs.
    """
    name = f"{proto.op_type} {proto.name or ', '.join(proto.output)}"
    if proto.domain not in ("", "ai.onnx") or (proto.op_type not in ARITHMETIC and proto.op_type not in MOVES):
        raise GraphError(
            f"The oracle has no operator {proto.op_type} ({name}).", "Run it in another engine, or implement it."
        )
    attributes = {entry.name: _attribute(proto.op_type, entry) for entry in proto.attribute}
    for key in (*attributes, *REQUIRED.get(proto.op_type, ())):
        if key in ONLY.get(proto.op_type, {}) and attributes.get(key) not in ONLY[proto.op_type][key]:
            raise GraphError(
                f"The oracle has no {proto.op_type} with {key}={attributes.get(key)} ({name}).",
                "Run it in another engine, or implement it.",
            )
    if any(proto.output[1:]) or not proto.output:
        raise GraphError(f"The oracle gives one output a node ({name}).", "Run it in another engine.")
    return Node(
        op=proto.op_type,
        name=proto.name,
        attributes=attributes,
        inputs=tuple(proto.input),
        output=proto.output[0],
    )


def _axes(name: str, shape: onnx.TensorShapeProto) -> tuple[str | int, ...]:
    """Return axes by name or size; one that has neither gets a name of its own."""
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param or f"{name}.{index}"
        for index, axis in enumerate(shape.dim)
    )


def _attribute(op: str, entry: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _array(value)
    if op == "Cast" and entry.name == "to":
        return _dtype(value)
    return list(value) if entry.type == onnx.AttributeProto.INTS else value


def _array(tensor: onnx.TensorProto) -> Array:
    _dtype(tensor.data_type)
    return onnx.numpy_helper.to_array(tensor)


def _dtype(elem_type: int) -> np.dtype[Any]:
    """Return NumPy's type for an ONNX element type.

    Raises:
        GraphError: It is none of those computed here.
    """
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(f"The file holds the unknown element type {elem_type}.", "Export it again.") from error
    if dtype not in TYPES:
        raise GraphError(f"The oracle does not compute in {dtype}.", "Use fp32, fp16 or bf16.")
    return dtype
