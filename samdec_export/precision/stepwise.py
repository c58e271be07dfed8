"""Run a graph in ONNX Runtime a few nodes at a time, and hand over every tensor on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, inliner, numpy_helper

from samdec_export.core.errors import DependencyError, GraphError, UsageError
from samdec_export.core.feeds import undeclared
from samdec_export.core.runner import Array, Feeds
from samdec_export.export.onnx_file import dtype_name

__all__ = ["NODES_PER_RUN", "StepwiseGraph"]

NODES_PER_RUN = 8
"""Nodes whose outputs are in memory together, beside the values that later nodes wait for."""

FATAL_ONLY = 4
"""Errors are raised as well: in the log they would stand twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Consecutive nodes as a model of their own. Of its values, `spent` are not wanted after it."""

    nodes: list[onnx.NodeProto]
    model: bytes
    inputs: list[str]
    outputs: list[str]
    spent: list[str]


class StepwiseGraph:
    """A model whose every tensor can be seen while it runs, as it stands: nothing is optimised away.

    Each node of a model without control flow runs once for each set of inputs, and only what is still needed is kept in
    memory. No value depends on how many nodes run together. `path` is the model's file, for messages.

    Raises:
        GraphError: ONNX Runtime refuses the model, or its nodes are not in order.
        DependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, nodes_per_run: int = NODES_PER_RUN) -> None:
        self.path = path
        self.model = inliner.inline_local_functions(model)
        self.nodes = list(self.model.graph.node)
        self.initialisers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.weights = {name: numpy_helper.to_array(tensor) for name, tensor in self.initialisers.items()}
        probe = onnx.ModelProto()  # with every node's outputs as its outputs: ONNX Runtime gives their types
        probe.CopyFrom(self.model)
        del probe.graph.output[:]
        names = (name for node in self.nodes for name in node.output if name)
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = _open(bytes(probe.SerializeToString()), path)
        self._inputs = session.get_inputs()
        self.types = {value.name: _elem_type(value, path) for value in (*self._inputs, *session.get_outputs())}
        self._require_order()
        self._parts = list(self._cut(nodes_per_run))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return what `run` must be given."""
        return tuple(value.name for value in self._inputs)

    def is_float32(self, name: str) -> bool:
        """Return whether an input or a node's output is of that type, as ONNX Runtime finds it."""
        return self.types.get(name) == TensorProto.FLOAT

    def check(self, feeds: Feeds) -> None:
        """Raise a UsageError that lists each difference unless `feeds` are the graph's inputs."""
        declared = {value.name: (dtype_name(self.types[value.name]), _axes(value)) for value in self._inputs}
        problems = undeclared(declared, feeds)
        if problems:
            raise UsageError(
                f"The inputs do not fit {self.path}: {'; '.join(problems)}.",
                "samdec-export inspect shows what it takes.",
            )

    def run(self, feeds: Feeds) -> Iterator[tuple[onnx.NodeProto, Mapping[str, Array]]]:
        """Yield every node in order, with the values of at least its inputs and outputs, by name.

        Raises:
            UsageError: `feeds` are not the graph's inputs.
            GraphError: ONNX Runtime fails; the message is its own.
        """
        self.check(feeds)
        values: dict[str, Array] = {**self.weights, **feeds}
        for part in self._parts:
            session = _open(part.model, self.path)  # a session holds threads and weights: only one at a time
            taken = {name: values[name] for name in part.inputs}
            try:
                values.update(zip(part.outputs, session.run(part.outputs, taken), strict=True))
            except Exception as error:  # onnxruntime's exceptions share no public base
                raise GraphError(
                    f"ONNX Runtime failed on {self.path}: {_reason(error)}", "The inputs may not fit together."
                ) from error
            for node in part.nodes:
                yield node, values
            for name in part.spent:
                del values[name]

    def _require_order(self) -> None:
        known = {*self.inputs, *self.initialisers, ""}
        for node in self.nodes:
            if late := sorted(set(node.input) - known):
                raise GraphError(f"{self.path}: {late[0]} is taken before it is made.", "Sort the graph's nodes.")
            known.update(node.output)

    def _cut(self, size: int) -> Iterator[_Part]:
        """Yield the graph as parts of `size` nodes, each with what it takes from those before it."""
        # The number of the last part that reads a tensor: a later node of the same part overwrites an earlier one's.
        last_use = {name: index // size for index, node in enumerate(self.nodes) for name in node.input}
        for number, start in enumerate(range(0, len(self.nodes), size)):
            nodes = self.nodes[start : start + size]
            outputs = [name for node in nodes for name in node.output if name]
            # What the part reads and does not make: weights go into its model, all else is fed to it.
            taken = dict.fromkeys(name for node in nodes for name in node.input if name and name not in outputs)
            weights = [name for name in taken if name in self.initialisers]
            inputs = [name for name in taken if name not in self.initialisers]
            yield _Part(
                nodes=nodes,
                model=self._submodel(nodes, inputs, outputs, weights),
                inputs=inputs,
                outputs=outputs,
                # A value that nothing reads, such as the graph's own output, is spent where it is made.
                spent=[name for name in (*inputs, *outputs) if last_use.get(name, number) == number],
            )

    def _submodel(
        self, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], weights: list[str]
    ) -> bytes:
        taken, made = (
            [onnx.helper.make_tensor_value_info(name, self.types[name], None) for name in names]
            for names in (inputs, outputs)
        )
        graph = onnx.helper.make_graph(nodes, "part", taken, made, [self.initialisers[name] for name in weights])
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        return bytes(model.SerializeToString())


def _open(model: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            "onnxruntime is not installed.", "Install an extra: pip install 'samdec-export[cpu]', or [gpu]."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # every part has other shapes
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise GraphError(f"ONNX Runtime refuses {path}: {_reason(error)}", "Export it again.") from error


def _axes(value: Any) -> tuple[str | int, ...]:
    """Return an input's axes by name or size; one that has neither gets a name of its own."""
    return tuple(axis if axis is not None else f"{value.name}.{index}" for index, axis in enumerate(value.shape))


def _elem_type(value: Any, path: Path) -> int:
    """Return the ONNX element type of what ONNX Runtime writes as `tensor(float)`."""
    text = str(value.type)
    try:
        return int(TensorProto.DataType.Value(text.removeprefix("tensor(").removesuffix(")").upper()))
    except ValueError as error:
        raise GraphError(f"{path}: {value.name} is a {text}, not a tensor.", "Only tensors can be seen.") from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
