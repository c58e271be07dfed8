"""Opset 18 to opset 17, for the operators that a decoder has.

onnx's own converter refuses this step when a reduction's axes come from a shared initialiser.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from samdec_export.core.errors import GraphError

__all__ = ["lower_opset"]

ADDED_IN_18 = {
    "ReduceMax": ("noop_with_empty_axes",),
    "ReduceMean": ("noop_with_empty_axes",),
    "Resize": ("antialias", "axes", "keep_aspect_ratio_policy"),
    "Split": ("num_outputs",),
}
"""Attributes that opset 17 does not know; the exporter sets them to what opset 17 does anyway."""


def lower_opset(source: Path, target: Path) -> None:
    """Write a copy of an opset 18 file as opset 17.

    Raises:
        GraphError: A reduction's axes are not constant.
    """
    model = onnx.load(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("ReduceMax", "ReduceMean") and len(node.input) == 2:
            axes = constants.get(node.input.pop())
            if axes is None:
                raise GraphError(f"The axes of {node.name} are not constant.", "Export with opset 18 or above.")
            node.attribute.append(onnx.helper.make_attribute("axes", numpy_helper.to_array(axes).tolist()))
        _drop_attributes(node, ADDED_IN_18.get(node.op_type, ()))
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for opset in model.opset_import:
        opset.version = 17
    onnx.save(model, target)


def _drop_attributes(node: onnx.NodeProto, names: tuple[str, ...]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
