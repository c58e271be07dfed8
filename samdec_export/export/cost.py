"""What one run of a graph costs: floating-point operations of its matrix products, and bytes moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxslim
from onnx import numpy_helper

from samdec_export.core.dtypes import FORMATS
from samdec_export.core.errors import GraphError
from samdec_export.core.signature import Signature
from samdec_export.export.dataflow import MATRIX_PRODUCTS
from samdec_export.export.onnx_file import dtype_name, load

__all__ = [
    "Cost",
    "Product",
    "Shape",
    "count_cost",
    "fp32_products",
    "product_shares",
    "shares_by_type",
    "usual_products",
    "write_matmul",
]

Shape = tuple[int, ...]

FUSIONS = ["FusionGemm", "FusionGemmMul", "FusionGemmAdd", "FusionConvAdd", "FusionConvTransposeAdd"]
"""What onnxslim would fuse: nodes keep their names."""

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape"})
"""Operators that need not move what they are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One run. `flops` counts a multiply-add as two, in MatMul, Gemm, Conv and ConvTranspose.

    `bytes` adds up what every operator reads and writes, weights once: what a machine without fusion and without a
    cache would move.
    """

    flops: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One matmul: its node, the type that it is computed in (NumPy's name), and its operations."""

    node: str
    dtype: str
    flops: int


def count_cost(path: Path, inputs: Mapping[str, Shape]) -> Cost:
    """Count a graph at one set of input shapes.

    Args:
        path: An ONNX file.
        inputs: The shape of each input.

    Raises:
        GraphError: It cannot be read, or its shapes do not follow from those of its inputs.
    """
    fixed, sizes = _fixed(path, inputs)
    computing = [node for node in fixed.graph.node if node.op_type != "Constant"]
    return Cost(
        flops=sum(_flops(node, sizes.shapes) for node in computing),
        bytes=sum(
            sizes.bytes_of(name)
            for node in computing
            if node.op_type not in VIEWS
            for name in (*node.input, *node.output)
        ),
    )


def usual_products(path: Path, signature: Signature) -> tuple[Product, ...]:
    """Return the matmuls of a graph at the usual sizes of its axes, in graph order: which type multiplies what.

    Args:
        path: An ONNX file.
        signature: Its inputs.

    Raises:
        GraphError: As `count_cost`.
    """
    usual = {dim.name: dim.opt for dim in signature.dims}
    fp16, bf16 = FORMATS["fp16"].dtype, FORMATS["bf16"].dtype
    holds_bf16 = any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in load(path).graph.initializer)
    narrow = bf16 if holds_bf16 else fp16
    fixed, sizes = _fixed(path, {spec.name: spec.concrete(usual) for spec in signature.inputs})
    return tuple(
        Product(node=node.name, dtype=sizes.dtypes[node.output[0]].replace(fp16, narrow), flops=flops)
        for node in fixed.graph.node
        if (flops := _flops(node, sizes.shapes))
    )


def shares_by_type(products: Sequence[Product]) -> dict[str, float]:
    """Return the share of the operations of all matmuls in each type (NumPy's name), largest first."""
    total = sum(product.flops for product in products)
    shares: dict[str, float] = {}
    for product in products:
        shares[product.dtype] = shares.get(product.dtype, 0.0) + product.flops / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def product_shares(path: Path, signature: Signature) -> dict[str, float]:
    """Return `shares_by_type` of a file at its usual sizes.

    Raises:
        GraphError: As `count_cost`.
    """
    return shares_by_type(usual_products(path, signature))


def fp32_products(products: Sequence[Product]) -> list[str]:
    """Return the nodes that multiply matrices in fp32, which TensorRT-RTX does not do on Turing."""
    return [product.node for product in products if product.dtype == FORMATS["fp32"].dtype]


def _fixed(path: Path, inputs: Mapping[str, Shape]) -> tuple[onnx.ModelProto, _Sizes]:
    """Return the graph with every axis of a known size."""
    model = load(path)
    for value in model.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
            axis.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    _replace_bf16(model)
    fixed = onnx.shape_inference.infer_shapes(onnxslim.slim(model, skip_fusion_patterns=FUSIONS), data_prop=True)
    return fixed, _Sizes.of(fixed)


def _replace_bf16(model: onnx.ModelProto) -> None:
    """Call bf16 fp16: onnxslim folds nothing of a graph with bf16 in it, and shapes are the same."""
    replaced = {onnx.TensorProto.BFLOAT16: onnx.TensorProto.FLOAT16}
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        tensor.data_type = replaced.get(tensor.data_type, tensor.data_type)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                attribute.i = replaced.get(attribute.i, attribute.i)
            attribute.t.data_type = replaced.get(attribute.t.data_type, attribute.t.data_type)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Shape and element type of every tensor of a graph whose input shapes are fixed."""

    shapes: dict[str, Shape]
    dtypes: dict[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Sizes:
        shapes: dict[str, Shape] = {}
        dtypes: dict[str, str] = {}
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
            tensor = value.type.tensor_type
            shapes[value.name] = tuple(
                axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim
            )
            dtypes[value.name] = dtype_name(tensor.elem_type)
        for tensor in model.graph.initializer:
            shapes[tensor.name] = tuple(tensor.dims)
            dtypes[tensor.name] = dtype_name(tensor.data_type)
        for node in model.graph.node:
            if node.op_type == "Constant":
                array = numpy_helper.to_array(node.attribute[0].t)
                shapes[node.output[0]], dtypes[node.output[0]] = array.shape, str(array.dtype)
        return cls(shapes, dtypes)

    def bytes_of(self, name: str) -> int:
        return math.prod(_known(self.shapes, name)) * np.dtype(self.dtypes[name]).itemsize if name else 0


def _flops(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Return twice the multiply-adds of one node; 0 for what is not a matmul."""
    if node.op_type not in MATRIX_PRODUCTS:
        return 0
    left, right, output = (_known(shapes, name) for name in (node.input[0], node.input[1], node.output[0]))
    match node.op_type:
        case "MatMul":
            return 2 * math.prod(output) * left[-1]
        case "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return 2 * math.prod(output) * left[0 if transposed else 1]
        case "Conv":
            return 2 * math.prod(output) * math.prod(right[1:])
        case _:  # ConvTranspose: every input element meets every weight of its channel
            return 2 * math.prod(left) * math.prod(right[1:])


def _known(shapes: Mapping[str, Shape], name: str) -> Shape:
    shape = shapes.get(name)
    if shape is None or any(size < 0 for size in shape):
        raise GraphError(f"The shape of {name} does not follow from the inputs.", "Cost is counted on fp32 exports.")
    return shape


def write_matmul(path: Path, side: int) -> None:
    """Write a graph that multiplies a given (side, side) matrix `x` by a constant one: 2 * side**3 flops.

    Running it is how fast an engine multiplies matrices at best, which a decoder's speed is a share of.
    """
    weight = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [side, side]) for name in "xy")
    node = onnx.helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = onnx.helper.make_graph([node], "matmul", [x], [y], [numpy_helper.from_array(weight, "weight")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
