"""Convolutions whose windows do not overlap, written as the matrix products that they are.

ONNX has no bf16 convolution before opset 22, and TensorRT-RTX 1.7 builds no transposed one in bf16; products build in
every type. B images, C input and D output channels, k x k the kernel, h x w its steps over the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from samdec_export.core.errors import GraphError
from samdec_export.core.runner import Array
from samdec_export.export.dataflow import Dataflow, load_fp32

__all__ = ["convolutions_to_products"]

PLAIN: Final[Mapping[str, object]] = {
    "auto_pad": b"NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "output_padding": [0, 0],
    "pads": [0, 0, 0, 0],
}
"""Attributes that a convolution may have, and what they must be: each pixel is in one window, and in no padding."""


def convolutions_to_products(source: Path, target: Path) -> None:
    """Write a copy of an fp32 graph without convolutions, equal but for the order of sums.

    The product takes over its convolution's name, so that what names nodes finds it; the nodes around it are called
    `<name>/<what>`. No tensor gets more than four axes, and height and width may be dynamic.

    The convolutions are two-dimensional, with constant weights, a square kernel as large as the stride and a part of
    the image's sides, and neither padding, groups nor dilation.

    Raises:
        GraphError: The graph cannot be read, is not fp32, or has another convolution; the message names it.
    """
    model = Dataflow(load_fp32(source)).model
    rewriter = _Rewriter({tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer})
    nodes = [written for node in model.graph.node for written in rewriter.write(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in rewriter.made.items()]
    del model.graph.initializer[:]
    model.graph.initializer.extend(sorted(kept, key=lambda tensor: tensor.name))
    onnx.save(model, target)


@dataclass(slots=True)
class _Rewriter:
    """Writes nodes; `made` are the weights that they take beside the graph's own `weights`."""

    weights: Mapping[str, Array]
    made: dict[str, Array] = field(default_factory=dict)

    def write(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the node itself, or what stands for a convolution."""
        writers = {"Conv": self._convolution, "ConvTranspose": self._transposed}
        yield from writers[node.op_type](node) if node.op_type in writers else [node]

    def _convolution(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        weight, side = self._plain(node)  # (D, C, k, k)
        image = node.input[0]  # (B, C, h*k, w*k)
        if side > 1:
            image = f"{node.name}/windows"  # (B, k*k*C, h, w)
            yield _node("SpaceToDepth", [node.input[0]], image, blocksize=side)
        matrix = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)  # (D, k*k*C)
        yield from self._product(node, image, matrix, self._bias(node), node.output[0])

    def _transposed(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        weight, side = self._plain(node)  # (C, D, k, k)
        matrix = weight.reshape(len(weight), -1).T  # (D*k*k, C)
        bias = self._bias(node)
        spread = None if bias is None else np.repeat(bias, side * side)  # (D*k*k,)
        image = f"{node.name}/windows" if side > 1 else node.output[0]
        yield from self._product(node, node.input[0], matrix, spread, image)
        if side > 1:
            yield _node("DepthToSpace", [image], node.output[0], blocksize=side, mode="CRD", name=f"{node.name}/pixels")

    def _product(
        self, node: onnx.NodeProto, image: str, matrix: Array, bias: Array | None, output: str
    ) -> Iterator[onnx.NodeProto]:
        """Yield a matrix (D, C) times each pixel of `image` (B, C, h, w), plus a bias (D,): `output` (B, D, h, w)."""
        name = node.name
        rows = self._make(f"{name}/to_rows", np.array([0, 0, -1]))
        yield _node("Reshape", [image, rows], f"{name}/rows")  # (B, C, h*w)
        weight = self._make(f"{node.input[1]}/matrix", np.ascontiguousarray(matrix))
        product = f"{name}/product"
        yield _node("MatMul", [weight, f"{name}/rows"], product, name=name)  # (B, D, h*w)
        if bias is not None:
            column = self._make(f"{node.input[2]}/column", bias[:, None])
            yield _node("Add", [product, column], f"{name}/sum")
            product = f"{name}/sum"
        yield _node("Shape", [image], f"{name}/size", start=2)  # h, w
        yield _node("Concat", [self._make(f"{name}/kept", np.array([0, 0])), f"{name}/size"], f"{name}/shape", axis=0)
        yield _node("Reshape", [product, f"{name}/shape"], output, name=f"{name}/image")

    def _plain(self, node: onnx.NodeProto) -> tuple[Array, int]:
        """Return the weight of a convolution that is a product, and the side of its square kernel."""
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        weight = self.weights.get(node.input[1])
        if weight is None or weight.ndim != 4:
            raise _refusal(node, "its weight is not a constant of four axes")
        kernel = [*weight.shape[2:]]
        if kernel[0] != kernel[1] or attributes.pop("strides", [1, 1]) != kernel:
            raise _refusal(node, "its kernel is not a square as large as its stride")
        if attributes.pop("kernel_shape", kernel) != kernel:
            raise _refusal(node, "its kernel is not that of its weight")
        if strange := [name for name, value in attributes.items() if PLAIN.get(name) != value]:
            raise _refusal(node, f"of its {', '.join(strange)}")
        return weight, kernel[0]

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        if len(node.input) < 3 or not node.input[2]:
            return None
        if node.input[2] not in self.weights:
            raise _refusal(node, "its bias is not a constant")
        return self.weights[node.input[2]]

    def _make(self, name: str, array: Array) -> str:
        self.made[name] = array
        return name


def _node(op: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=name or output, **attributes)


def _refusal(node: onnx.NodeProto, reason: str) -> GraphError:
    return GraphError(
        f"{node.op_type} {node.name} cannot be written as a matrix product: {reason}.",
        "Convert to fp16, or stay with fp32.",
    )
