"""An ONNX file on a CPU, rounded as a GPU rounds it: the judge of fp16 and bf16 graphs where there is no GPU.

ONNX Runtime's CPU provider computes fp16 nodes in fp32 and drops casts between them, so what overflows on a GPU passes
there. Here every node's result is rounded to its own type, once, at its output, and becomes infinite where that type
ends. Within a node narrow types are computed and accumulated in fp32, as tensor cores do.

The evaluator is this package's own and not `onnx.reference.ReferenceEvaluator`. That one reduces, multiplies and
normalises fp16 in fp16 and takes Gelu as a chain of nodes, so most of what matters would be overridden; widening and
rounding in one place for every operator is shorter, and frees a tensor after its last use, which that one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from samdec_export.backends.oracle.arithmetic import ARITHMETIC
from samdec_export.backends.oracle.graph import GraphFile, read_graph
from samdec_export.backends.oracle.moves import MOVES
from samdec_export.backends.oracle.node import Node, widen
from samdec_export.core.dtypes import FORMATS
from samdec_export.core.errors import GraphError
from samdec_export.core.feeds import undeclared
from samdec_export.core.runner import Array, Feeds, Outputs

__all__ = ["OracleRunner"]

OF_ONE_TYPE: Final[dict[str, slice]] = {
    **{op: slice(None) for op in ARITHMETIC if op not in ("Pow", "Resize") and not op.startswith("Reduce")},
    **dict.fromkeys(("Concat", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), slice(None)),
    "Where": slice(1, None),
}
"""Which inputs must share a type: NumPy would widen the narrower one and hide a missing Cast."""

ABSENT: Final[Array] = np.empty(0)


class OracleRunner:
    """Runs an ONNX file with true rounding. The whole batch at once: memory grows with it.

    Args:
        path: The file: fp32, fp16, bf16 or a mixture.

    Raises:
        GraphError: It is not an ONNX file, of another opset, or holds what is not implemented here.
    """

    def __init__(self, path: Path) -> None:
        self.graph = read_graph(path)
        self.dead = _last_uses(self.graph)

    @property
    def name(self) -> str:
        """Return a name such as `oracle (fp16, numpy 2.4.6)`: the types narrower than fp32 that the file holds."""
        graph = self.graph
        casts = [node.attributes["to"] for node in graph.nodes if node.op == "Cast"]
        found = {*graph.declared.values(), *(array.dtype for array in graph.constants.values()), *casts}
        names = {dtype.name for dtype in found}
        narrow = [precision for precision, row in FORMATS.items() if precision != "fp32" and row.dtype in names]
        return f"oracle ({' and '.join(narrow) or 'fp32'}, numpy {np.__version__})"

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name, each of the type that the file declares.

        Raises:
            GraphError: The feeds are not what the file declares, or a node cannot be computed; the message names it.
        """
        self._check(feeds)
        values: dict[str, Array] = {"": ABSENT, **self.graph.constants, **feeds}
        with np.errstate(all="ignore"):  # overflow is a result here, not an accident
            for node, dead in zip(self.graph.nodes, self.dead, strict=True):
                values[node.output] = self._evaluate(node, values)
                for name in dead:
                    del values[name]
        return {name: np.array(values[name]) for name in self.graph.outputs}

    def _evaluate(self, node: Node, values: Mapping[str, Array]) -> Array:
        inputs = [values[name] for name in node.inputs]
        types = {array.dtype.name for array in inputs[OF_ONE_TYPE.get(node.op, slice(0))] if array is not ABSENT}
        if len(types) > 1:
            raise GraphError(f"{node} mixes {' and '.join(sorted(types))}.", "A Cast is missing before it.")
        try:
            if node.op in MOVES:
                result = np.asarray(MOVES[node.op](node, inputs))
            else:
                result = np.asarray(ARITHMETIC[node.op](node, [widen(array) for array in inputs]))
                result = result.astype(inputs[0].dtype, copy=False)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            shapes = ", ".join(str(array.shape) for array in inputs)
            raise GraphError(f"{node} of shapes {shapes} failed: {error}.", "The graph or a feed is wrong.") from error
        declared = self.graph.declared.get(node.output, result.dtype)
        if declared != result.dtype:
            raise GraphError(
                f"{node} gives {result.dtype}, and the file declares {declared} for {node.output}.",
                "A Cast is missing, or the file's value_info is out of date.",
            )
        return result

    def _check(self, feeds: Feeds) -> None:
        graph = self.graph
        declared = {name: (graph.declared[name].name, axes) for name, axes in graph.inputs.items()}
        if problems := undeclared(declared, feeds):
            raise GraphError(f"The feeds do not fit the graph: {'; '.join(problems)}.", "See samdec-export inspect.")


def _last_uses(graph: GraphFile) -> list[list[str]]:
    """Return the tensors that each node is the last to read, or that no node reads.

    Raises:
        GraphError: A node or an output reads a name that nothing has made before.
    """
    known = {"", *graph.constants, *graph.inputs}
    for node in graph.nodes:
        _require_known(known, node.inputs, str(node))
        known.add(node.output)
    _require_known(known, graph.outputs, "the graph's output")
    last = {name: index for index, node in enumerate(graph.nodes) for name in (node.output, *node.inputs)}
    kept = {"", *graph.constants, *graph.outputs}
    dead: list[list[str]] = [[] for _ in graph.nodes]
    for name, index in last.items():
        if name not in kept:
            dead[index].append(name)
    return dead


def _require_known(known: set[str], names: tuple[str, ...], reader: str) -> None:
    for name in names:
        if name not in known:
            raise GraphError(f"{reader} reads {name}, which nothing before it makes.", "Export it again.")
