"""A graph as the passes on precision see it: which tensors hold floats, who makes them, who reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from samdec_export.core.dtypes import DTYPES, FORMATS
from samdec_export.core.errors import GraphError
from samdec_export.export.onnx_file import load

__all__ = ["FLOATS", "MATRIX_PRODUCTS", "Dataflow", "load_fp32"]

FLOATS = frozenset(row.onnx for row in DTYPES.values() if row.floating)
"""ONNX's numbers of the floating-point types."""

MATRIX_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
"""Operators that multiply matrices: whose precision matters, and whose operations are counted."""

NARROW = {row.onnx: row.title for row in DTYPES.values() if row.floating and row.bytes < FORMATS["fp32"].bytes}


@dataclass(slots=True)
class Dataflow:
    """Nodes by name, and the tensors between them. Every node of `model` has a name of its own."""

    model: onnx.ModelProto
    nodes: dict[str, onnx.NodeProto] = field(init=False)
    types: dict[str, int] = field(init=False)
    makers: dict[str, str] = field(init=False)
    readers: dict[str, list[str]] = field(init=False)
    weights: set[str] = field(init=False)
    shapes: dict[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        _name_nodes(graph.node)
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        self.nodes = {node.name: node for node in graph.node}
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.weights = {*self.shapes}
        self.makers = {name: node.name for node in graph.node for name in node.output if name}
        self.readers = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node.name)

    def is_float(self, tensor: str) -> bool:
        """Return whether it holds floating-point numbers."""
        return self.types.get(tensor, 0) in FLOATS

    def is_matrix(self, weight: str) -> bool:
        """Return whether it is a weight of floats with two axes or more that are longer than one."""
        return self.is_float(weight) and sum(size > 1 for size in self.shapes[weight]) >= 2

    def float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Return the node's inputs that hold floats, weights among them."""
        return [name for name in node.input if name and self.is_float(name)]

    def float_outputs(self, node: onnx.NodeProto) -> list[str]:
        """Return the node's outputs that hold floats."""
        return [name for name in node.output if name and self.is_float(name)]

    def sources(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that make the node's float inputs."""
        for name in self.float_inputs(node):
            if name in self.makers:
                yield self.nodes[self.makers[name]]

    def ancestors(self, starts: Iterable[str], stop: frozenset[str] = frozenset()) -> set[str]:
        """Return the nodes named in `starts` and all that their floats follow from, short of operators in `stop`."""
        found: set[str] = set()
        waiting = list(starts)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [source.name for source in self.sources(self.nodes[name]) if source.op_type not in stop]
        return found


def load_fp32(path: Path) -> onnx.ModelProto:
    """Read an ONNX file of which a pass on precision sees everything, in fp32.

    Raises:
        GraphError: It cannot be read, or is not such a file; the message says what it is.
    """
    model = load(path)
    types = {tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        types.add(value.type.tensor_type.elem_type)
    nodes = (*model.graph.node, *(node for function in model.functions for node in function.node))
    types |= {attribute.i for node in nodes if node.op_type == "Cast" for attribute in node.attribute}
    found = next((f"already {NARROW[kind]}" for kind in sorted(types) if kind in NARROW), "")
    if any(_is_quantised(node) for node in nodes):
        found = "quantised"
    if found:
        raise GraphError(f"{path} is {found}.", "The fp32 file that it was made from is what is needed.")
    for node in nodes:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise GraphError(
                f"{path} holds control flow ({node.op_type} {node.name}).",
                "Passes on precision cannot see inside.",
            )
    if model.graph.sparse_initializer:
        raise GraphError(f"{path} holds sparse weights.", "Passes on precision are for dense graphs.")
    return model


def _is_quantised(node: onnx.NodeProto) -> bool:
    kind = node.op_type.lower()
    return "quantize" in kind or kind.startswith("qlinear") or kind.endswith(("integer", "nbits"))


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give every node a name of its own: by names nodes are kept and reported."""
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
