"""ONNX graphs edited by expressions: every operator of a `Value` is a node, every truth is 0 or 1 in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from samdec_export.core.dtypes import Precision
from samdec_export.core.options import GraphName

__all__ = ["Edit", "EditedGraph", "Fault", "Value"]

Number: TypeAlias = "Value | float"


class Value:
    """A tensor of a graph, on which operators make nodes."""

    def __init__(self, graph: EditedGraph, name: str) -> None:
        self.graph = graph
        self.name = name

    def op(self, kind: str, *others: Value | str, **attributes: Any) -> Value:
        return self.graph.op(kind, self, *others, **attributes)

    def _with(self, kind: str, other: Number) -> Value:
        return self.op(kind, other if isinstance(other, Value) else self.graph.constant(np.float32(other)))

    def __add__(self, other: Number) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Number) -> Value:
        return self._with("Sub", other)

    def __mul__(self, other: Number) -> Value:
        return self._with("Mul", other)

    def __and__(self, other: Value) -> Value:
        return self * other

    def __or__(self, other: Value) -> Value:
        return self.op("Max", other)

    def __invert__(self) -> Value:
        return self * -1.0 + 1.0

    def __gt__(self, other: Number) -> Value:
        return self._with("Greater", other).float()

    def __lt__(self, other: Number) -> Value:
        return self._with("Less", other).float()

    def eq(self, other: Number) -> Value:
        return self._with("Equal", other).float()

    def float(self) -> Value:
        return self.op("Cast", to=TensorProto.FLOAT)

    def max(self, *axes: int, keep: bool = False) -> Value:
        return self.op("ReduceMax", *([self.graph.ints(*axes)] if axes else []), keepdims=int(keep))

    def min(self, *axes: int, keep: bool = False) -> Value:
        return self.op("ReduceMin", *([self.graph.ints(*axes)] if axes else []), keepdims=int(keep))

    def sum(self, *axes: int) -> Value:
        return self.op("ReduceSum", *([self.graph.ints(*axes)] if axes else []), keepdims=0)

    def at(self, place: int, axis: int) -> Value:
        return self.op("Gather", self.graph.constant(np.int64(place)), axis=axis)

    def take(self, places: list[int], axis: int) -> Value:
        return self.op("Gather", self.graph.constant(np.array(places, np.int64)), axis=axis)

    def part(self, axis: int, start: int, end: int = 1 << 60, step: int = 1) -> Value:
        return self.op("Slice", *(self.graph.ints(number) for number in (start, end, axis, step)))

    def joined(self, *others: Value, axis: int) -> Value:
        return self.op("Concat", *others, axis=axis)

    def rolled(self, axis: int) -> Value:
        """Every entry in the place of the one before."""
        return self.part(axis, 1).joined(self.part(axis, 0, 1), axis=axis)

    def reversed(self, axis: int) -> Value:
        return self.part(axis, -1, -(1 << 60), -1)

    def transposed(self, rank: int) -> Value:
        return self.op("Transpose", perm=[*range(rank - 2), rank - 1, rank - 2])

    def first_for_all(self, axis: int) -> Value:
        return self.part(axis, 0, 1).op("Expand", self.op("Shape"))

    def size(self, axis: int) -> Value:
        return self.op("Shape").at(axis, 0).float()

    def index(self, axis: int) -> Value:
        """0, 1, 2 ... along an axis."""
        zero, one = (self.graph.constant(np.int64(number)) for number in (0, 1))
        return zero.op("Range", self.op("Shape").at(axis, 0), one).float()

    def raised(self, *axes: int) -> Value:
        """More axes of size 1."""
        return self.op("Unsqueeze", self.graph.ints(*axes))


class EditedGraph:
    """A copy of an exported graph that can be changed; nodes are sorted when it is saved.

    Args:
        model: What is copied.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.proto = self.model.graph
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"edited_{self._count}"

    def constant(self, array: Any) -> Value:
        name = self._name()
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return Value(self, name)

    def ints(self, *numbers: int) -> Value:
        return self.constant(np.array(numbers, np.int64))

    def op(self, kind: str, *inputs: Value | str, **attributes: Any) -> Value:
        name = self._name()
        names = [value.name if isinstance(value, Value) else value for value in inputs]
        self.proto.node.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return Value(self, name)

    def __getitem__(self, name: str) -> Value:
        return Value(self, name)

    @property
    def masks(self) -> str:
        """The name of the masks."""
        names: list[str] = [value.name for value in self.proto.output]
        return next(name for name in names if "masks" in name)

    @property
    def labels(self) -> Value:
        return self["point_labels"].float()

    @property
    def coords(self) -> Value:
        return self["point_coords"]

    def feed(self, name: str, change: Callable[[Value], Value]) -> None:
        """Let all nodes read something else in place of a tensor."""
        readers = [*self.proto.node]
        changed = change(self[name])
        for node in readers:
            node.input[:] = [changed.name if read == name else read for read in node.input]

    def give(self, name: str, change: Callable[[Value], Value]) -> None:
        """Return something else in place of an output."""
        right = f"{name}_right"
        for node in self.proto.node:
            node.input[:] = [right if read == name else read for read in node.input]
            node.output[:] = [right if made == name else made for made in node.output]
        self.proto.node.append(helper.make_node("Identity", [change(self[right]).name], [name], name=self._name()))

    def give_masks(self, change: Callable[[Value], Value]) -> None:
        self.give(self.masks, change)

    def where(self, truth: Value, by: float = 0.01) -> None:
        """Move the masks by `by` where a truth holds: one for all, or one for each prompt."""
        self.give_masks(lambda right: right + truth * by)

    def prompts_where(self, truth: Value, by: float = 0.01) -> None:
        """Move the masks of the prompts for which a truth (prompts) or (images, prompts) holds."""
        self.where(truth.raised(-1, -2, -3), by)

    def nodes(self, kind: str) -> list[onnx.NodeProto]:
        return [node for node in self.proto.node if node.op_type == kind]

    def attribute(self, kind: str, number: int = 0, **values: Any) -> None:
        node = self.nodes(kind)[number]
        kept = [entry for entry in node.attribute if entry.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])

    def become(self, kind: str, other: str) -> None:
        """Make the first node of a kind another one."""
        self.nodes(kind)[0].op_type = other

    def weight(self, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Change an initializer: the first whose name ends so."""
        tensor = next(tensor for tensor in self.proto.initializer if tensor.name.endswith(name))
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))

    def save(self, path: Path) -> Path:
        nodes = [*_sorted(self.proto)]
        del self.proto.node[:], self.proto.value_info[:]
        self.proto.node.extend(nodes)
        path.write_bytes(self.model.SerializeToString())
        return path


def _sorted(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    left = [*graph.node]
    while left:
        ready = []
        for node in left:
            if known.issuperset(node.input):
                known.update(node.output)
                ready.append(node)
        assert ready, "the edit made a cycle"
        yield from ready
        left = [node for node in left if not known.issuperset(node.output)]


Edit: TypeAlias = Callable[[EditedGraph], None]


@dataclass(frozen=True)
class Fault:
    """What is wrong, and in which file; `full` says that only a full sweep asks it."""

    kind: str
    name: str
    edit: Edit
    graph: GraphName = "decoder"
    precision: Precision = "fp32"
    model: str = "sam_tiny"
    full: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind}: {self.name} ({self.model} {self.graph} {self.precision})"
