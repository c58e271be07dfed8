"""A graph as the passes on precision see it: which tensors hold floats, who makes them, who reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

from samdec_export.errors import GraphError

__all__ = ["FLOATS", "MATRIX_PRODUCTS", "Dataflow", "require_plain_fp32"]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

MATRIX_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})

QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "MatMulInteger"})


@dataclass(slots=True)
class Dataflow:
    """Nodes by name, and the tensors between them. Every node of `model` has a name of its own."""

    model: onnx.ModelProto
    nodes: dict[str, onnx.NodeProto] = field(init=False)
    types: dict[str, int] = field(init=False)
    makers: dict[str, str] = field(init=False)
    readers: dict[str, list[str]] = field(init=False)
    weights: set[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        _name_nodes(graph.node)
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        self.nodes = {node.name: node for node in graph.node}
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.weights = {tensor.name for tensor in graph.initializer}
        self.makers = {name: node.name for node in graph.node for name in node.output if name}
        self.readers = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node.name)

    def is_float(self, tensor: str) -> bool:
        """It holds floating-point numbers."""
        return self.types.get(tensor, 0) in FLOATS

    def float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The node's inputs that hold floats, weights among them."""
        return [name for name in node.input if name and self.is_float(name)]

    def float_outputs(self, node: onnx.NodeProto) -> list[str]:
        """The node's outputs that hold floats."""
        return [name for name in node.output if name and self.is_float(name)]

    def sources(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that make the node's float inputs."""
        for name in self.float_inputs(node):
            if name in self.makers:
                yield self.nodes[self.makers[name]]

    def ancestors(self, starts: Iterable[str], stop: frozenset[str] = frozenset()) -> set[str]:
        """The nodes named in `starts` and all that their floats follow from, short of operators in `stop`."""
        found: set[str] = set()
        waiting = list(starts)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [source.name for source in self.sources(self.nodes[name]) if source.op_type not in stop]
        return found


def require_plain_fp32(model: onnx.ModelProto, origin: str) -> None:
    """Do nothing if every float of the graph is fp32 and nothing is quantised.

    Raises:
        GraphError: The graph has a precision already, or is of a kind that cannot be converted.
    """
    quantised = sorted({node.op_type for node in model.graph.node if node.op_type in QUANTISED or _is_custom(node)})
    if quantised:
        raise GraphError(
            f"{origin} has operators that are quantised or not of ONNX: {', '.join(quantised)}.",
            "Convert the plain fp32 file that it was made from.",
        )
    flow = Dataflow(model)
    used = {flow.types[name] for name in flow.types if flow.is_float(name)} - {TensorProto.FLOAT}
    if used:
        names = ", ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in used))
        raise GraphError(
            f"{origin} is not fp32: it has {names} tensors.", "Convert the fp32 file that it was made from."
        )
    if TensorProto.FLOAT not in flow.types.values():
        raise GraphError(f"{origin} has no floating-point tensor.", "There is nothing to convert.")


def _is_custom(node: onnx.NodeProto) -> bool:
    return node.domain not in ("", "ai.onnx")


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Names are how nodes are kept and reported: give one to those without, and to each namesake its own."""
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
