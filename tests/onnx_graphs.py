"""ONNX graphs made by hand, and exported ones cast to another type as plainly as `.to(dtype)` casts a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[Any]]

ELEM: dict[str, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPE: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16, "bf16": bfloat16}


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    feeds: Arrays,
    outputs: Mapping[str, int],
    constants: Arrays | None = None,
    opset: int = 20,
) -> Path:
    """A graph whose inputs are those of `feeds`, and whose outputs have the given element types and any shape."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info(name, elem, None) for name, elem in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return path


def lowered(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy in which every float tensor is of `precision`; inputs and outputs stay fp32, with a Cast each.

    What Resize reads beside its data must be fp32 by the specification.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, elem = copy.graph, ELEM[precision]
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:] if name}
    for tensor in graph.initializer:
        _lower_tensor(tensor, precision, kept)
    for node in graph.node:
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.i == TensorProto.FLOAT:
                entry.i = elem
            if entry.type == onnx.AttributeProto.TENSOR and node.output[0] not in kept:
                _lower_tensor(entry.t, precision, kept)
    inputs = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    outputs = [value.name for value in graph.output]
    for node in graph.node:
        node.input[:] = [f"{name}_low" if name in inputs or name in outputs else name for name in node.input]
        node.output[:] = [f"{name}_low" if name in outputs else name for name in node.output]
    before = [helper.make_node("Cast", [name], [f"{name}_low"], to=elem) for name in sorted(inputs)]
    after = [helper.make_node("Cast", [f"{name}_low"], [name], to=TensorProto.FLOAT) for name in outputs]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return copy


def _lower_tensor(tensor: onnx.TensorProto, precision: str, kept: set[str]) -> None:
    if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
        array = numpy_helper.to_array(tensor).astype(DTYPE[precision])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
