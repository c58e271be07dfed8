"""From fp32 to fp16 or bf16: the types are written into the graph, with as few casts as that takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from samdec_export.core.dtypes import FORMATS, Precision
from samdec_export.export.dataflow import Dataflow, load_fp32

__all__ = ["MOVES", "autocast"]

MOVES = frozenset(
    {
        *("Reshape", "Transpose", "Concat", "Slice", "Gather", "Unsqueeze", "Squeeze", "Expand", "Split", "Identity"),
        *("Where", "Flatten", "Pad", "Tile", "Cast", "Constant", "ConstantOfShape", "DepthToSpace", "SpaceToDepth"),
    }
)
"""Operators that copy numbers and compute none: they take whatever type saves a cast."""

INDIFFERENT = frozenset({"Shape", "Size"})
"""Operators that read a tensor of any type and see no number in it."""

ALWAYS_FP32 = {"Resize": (1, 2)}
"""Inputs whose type the operator fixes, by position."""


def autocast(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    keep: Collection[str] = (),
    stored_low: Collection[str] = (),
    low_inputs: Collection[str] = (),
    low_outputs: Collection[str] = (),
) -> None:
    """Write a copy of an fp32 graph whose nodes compute in `precision`, sorted, with a cast only where types meet.

    Nodes named in `keep` stay in fp32; the matrices of those in `stored_low` are stored in `precision` all the same,
    with a cast behind each. The graph's `low_inputs` and `low_outputs` are in `precision`, the others in fp32.

    Raises:
        GraphError: The graph cannot be read, is not fp32, or is quantised.
    """
    flow = Dataflow(load_fp32(source))
    plan = _Plan(flow, frozenset(keep), frozenset(low_inputs), frozenset(low_outputs))
    plan.save_casts()
    onnx.save(_Rewriter(flow, plan, precision, frozenset(stored_low)).model(), target)


@dataclass(slots=True)
class _Plan:
    """Which nodes are `low`. `save_casts` moves the borders between low and fp32 to where few casts are needed."""

    flow: Dataflow
    keep: frozenset[str]
    low_inputs: frozenset[str]
    low_outputs: frozenset[str]
    low: dict[str, bool] = field(init=False)

    def __post_init__(self) -> None:
        self.low = {}
        for node in self.flow.nodes.values():
            sources = [source for source in self.flow.sources(node) if source.name in self.low]
            follows = node.op_type in MOVES and sources
            self.low[node.name] = node.name not in self.keep and (not follows or self.low[sources[0].name])

    def save_casts(self) -> None:
        """Flip moves while that saves casts, and to low where it makes no difference."""
        movable = [node for node in self.flow.nodes.values() if node.op_type in MOVES and node.name not in self.keep]
        changed = True
        while changed:
            changed = False
            for node in movable:
                before = self._casts_around(node)
                self.low[node.name] = not self.low[node.name]
                after = self._casts_around(node)
                if after < before or (after == before and self.low[node.name]):
                    changed = True
                else:
                    self.low[node.name] = not self.low[node.name]

    def is_low(self, tensor: str) -> bool:
        """Return whether the tensor is made in the low type."""
        if tensor in self.flow.makers:
            return self.low[self.flow.makers[tensor]]
        return tensor in self.low_inputs

    def wanted(self, tensor: str) -> set[bool]:
        """Return the types, low or not, that the tensor's readers want."""
        readers = (self.flow.nodes[name] for name in self.flow.readers.get(tensor, ()))
        wants = {want for reader in readers for want in self._wants(tensor, reader)}
        if tensor in {value.name for value in self.flow.model.graph.output}:
            wants.add(tensor in self.low_outputs)
        return wants

    def _wants(self, tensor: str, reader: onnx.NodeProto) -> Iterator[bool]:
        if reader.op_type in INDIFFERENT:
            return
        for index, name in enumerate(reader.input):
            if name == tensor:
                yield self.low[reader.name] and index not in ALWAYS_FP32.get(reader.op_type, ())

    def _casts_around(self, node: onnx.NodeProto) -> int:
        tensors = {*self.flow.float_inputs(node), *self.flow.float_outputs(node)} - self.flow.weights
        return sum((not self.is_low(tensor)) in self.wanted(tensor) for tensor in tensors)


@dataclass(slots=True)
class _Rewriter:
    """Writes the planned types into a graph."""

    flow: Dataflow
    plan: _Plan
    precision: Precision
    stored_low: frozenset[str]
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def low_type(self) -> int:
        return FORMATS[self.precision].onnx

    def model(self) -> onnx.ModelProto:
        """Return the typed graph, as a new model."""
        source = self.flow.model
        graph = onnx.GraphProto(name=source.graph.name)
        graph.input.extend(self._typed(value, value.name in self.plan.low_inputs) for value in source.graph.input)
        graph.output.extend(self._typed(value, value.name in self.plan.low_outputs) for value in source.graph.output)
        for value in source.graph.input:
            graph.node.extend(self._casts(value.name))
        widened: set[str] = set()
        for node in source.graph.node:
            graph.node.extend(self._widen(node, widened))
            graph.node.append(self._node(node))
            for name in node.output:
                graph.node.extend(self._casts(name))
        graph.initializer.extend(tensor for _, tensor in sorted(self.weights.items()))
        result = onnx.ModelProto()
        result.CopyFrom(source)
        result.graph.CopyFrom(graph)
        return result

    def _typed(self, value: onnx.ValueInfoProto, low: bool) -> onnx.ValueInfoProto:
        typed = onnx.ValueInfoProto()
        typed.CopyFrom(value)
        if self.flow.is_float(value.name):
            typed.type.tensor_type.elem_type = self.low_type if low else TensorProto.FLOAT
        return typed

    def _name(self, tensor: str, low: bool) -> str:
        """Return the tensor's name where it is wanted in one type: an output of the graph keeps its name."""
        outputs = {value.name for value in self.flow.model.graph.output}
        own = tensor in self.plan.low_outputs if tensor in outputs else self.plan.is_low(tensor)
        return tensor if low == own else f"{tensor}_{self.precision if low else 'fp32'}"

    def _casts(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """Yield the cast behind a tensor, if a reader wants another type than it is made in."""
        made = self.plan.is_low(tensor)
        if self.flow.is_float(tensor) and (not made) in self.plan.wanted(tensor):
            output = self._name(tensor, not made)
            kind = TensorProto.FLOAT if made else self.low_type
            yield helper.make_node("Cast", [self._name(tensor, made)], [output], name=f"cast_{output}", to=kind)

    def _widen(self, source: onnx.NodeProto, widened: set[str]) -> Iterator[onnx.NodeProto]:
        """Yield casts of the matrices that a node reads in fp32 and that are stored in the low type; once for each."""
        for name in source.input:
            if self._is_stored_low(name, source) and name not in widened:
                widened.add(name)
                stored, output = self._input(name, low=True), f"{name}_fp32"
                yield helper.make_node("Cast", [stored], [output], name=f"cast_{output}", to=TensorProto.FLOAT)

    def _is_stored_low(self, name: str, reader: onnx.NodeProto) -> bool:
        return name in self.flow.weights and reader.name in self.stored_low and self.flow.is_matrix(name)

    def _node(self, source: onnx.NodeProto) -> onnx.NodeProto:
        low = self.plan.low[source.name]
        node = onnx.NodeProto()
        node.CopyFrom(source)
        fixed = ALWAYS_FP32.get(source.op_type, ())
        for index, name in enumerate(source.input):
            if name and self.flow.is_float(name):
                want = self.plan.is_low(name) if source.op_type in INDIFFERENT else low and index not in fixed
                node.input[index] = f"{name}_fp32" if self._is_stored_low(name, source) else self._input(name, want)
            elif name in self.flow.weights:
                self._weight(name, name)
        for index, name in enumerate(source.output):
            if name and self.flow.is_float(name):
                node.output[index] = self._name(name, low)
                _retype(node, self.low_type if low else TensorProto.FLOAT)
        return node

    def _input(self, name: str, low: bool) -> str:
        if name not in self.flow.weights:
            return self._name(name, low)
        typed = f"{name}_{self.precision}" if low else name
        self._weight(name, typed, self.low_type if low else None)
        return typed

    def _weight(self, name: str, typed: str, kind: int | None = None) -> None:
        if typed not in self.weights:
            (tensor,) = (tensor for tensor in self.flow.model.graph.initializer if tensor.name == name)
            self.weights[typed] = _rounded(tensor, kind, typed) if kind else tensor


def _retype(node: onnx.NodeProto, kind: int) -> None:
    """Set the type that a node's attributes name."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = kind
        elif node.op_type in ("Constant", "ConstantOfShape") and attribute.type == onnx.AttributeProto.TENSOR:
            attribute.t.CopyFrom(_rounded(attribute.t, kind, attribute.t.name))


def _rounded(tensor: onnx.TensorProto, kind: int, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(kind)), name)
