"""How large a graph's values get: what decides which of its tensors a 16-bit type can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from samdec_export.core.dtypes import FORMATS, PRECISIONS, Precision
from samdec_export.core.errors import GraphError, UsageError
from samdec_export.core.runner import Array, Feeds
from samdec_export.export.dataflow import load_fp32
from samdec_export.precision.stepwise import NODES_PER_RUN, StepwiseGraph

__all__ = ["Kind", "TensorRange", "audit_ranges"]

Kind: TypeAlias = Literal["input", "weight", "node"]

MOVING = (
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape"),
    *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
"""Operators that hand on values that they were given."""

BLOCK = 1 << 18
"""Elements that are reduced at a time: what is made on the way stays in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """What one float32 tensor held over every set of inputs.

    Args:
        tensor: Its name.
        node: The node that makes it; the tensor's name for an input or an initialiser, which have no `op`.
        kind: Where it comes from. A Constant node makes a weight.
        absmax: The largest finite magnitude.
        smallest: The smallest finite magnitude other than zero; None where there is none.
        nonzero: How many of the `values` were finite and not zero.
        below: Of those, how many are below the smallest normal number of each precision.
        squared_absmax: For a LayerNormalization the largest (x - mean)**2 of its input x, which a variance that is
            spelled out or accumulated in 16 bits has to hold: where that is infinite the output is zero, without a NaN
            to notice. None for all else.
    """

    tensor: str
    node: str
    op: str
    kind: Kind
    absmax: float = 0.0
    smallest: float | None = None
    values: int = 0
    nonzero: int = 0
    below: Mapping[Precision, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))
    nonfinite: int = 0
    squared_absmax: float | None = None

    @property
    def reach(self) -> float:
        """Return the largest magnitude that computing this tensor may meet: its own, or that of its input's squares."""
        return max(self.absmax, self.squared_absmax or 0.0)

    @property
    def moves(self) -> bool:
        """Return whether it only hands on values that other tensors of the audit hold as well."""
        return self.op in MOVING

    def overflow(self, precision: Precision) -> bool:
        """Return whether a value is beyond the largest that `precision` holds."""
        return self.absmax > FORMATS[precision].largest

    def squares_overflow(self, precision: Precision) -> bool:
        """Return whether a LayerNormalization would fail in `precision`, unless it computes its variance in fp32."""
        return (self.squared_absmax or 0.0) > FORMATS[precision].largest

    def margin(self, precision: Precision) -> float:
        """Return how many times larger the values could be; below 1 they overflow, infinite where all is zero."""
        return FORMATS[precision].largest / self.absmax if self.absmax else math.inf

    def below_normal(self, precision: Precision) -> float:
        """Return the share of the non-zero values, 0 to 1, that lose precision or vanish because they are too small."""
        return self.below[precision] / self.nonzero if self.nonzero else 0.0


def audit_ranges(path: Path, feeds: Iterable[Feeds], *, nodes_per_run: int = NODES_PER_RUN) -> tuple[TensorRange, ...]:
    """Run an fp32 graph in ONNX Runtime, without optimisation, and look at every float32 tensor on the way.

    Inputs are taken one set at a time, and the result does not depend on how many nodes run together.

    Returns:
        The graph's inputs, then node by node the weights that it is the first to take and its outputs.

    Raises:
        GraphError: The file cannot be read or run, is in 16 bits or quantised, or has tensors that cannot be seen.
        UsageError: There are no inputs, or they are not those of the graph.
        DependencyError: ONNX Runtime is not installed.
    """
    graph = StepwiseGraph(load_fp32(path), path, nodes_per_run)
    found = _unmeasured(graph)
    if not found:
        raise GraphError(f"{path} holds no float32 tensor.", "The audit is for fp32 graphs.")
    empty = True
    for inputs in feeds:
        empty = False
        graph.check(inputs)
        for name in inputs.keys() & found.keys():
            found[name] = _with_values(found[name], inputs[name])
        for node, values in graph.run(inputs):
            for name in node.output:
                if name in found:
                    found[name] = _with_values(found[name], values[name])
            if node.op_type == "LayerNormalization" and node.output[0] in found:
                axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
                found[node.output[0]] = _with_squares(found[node.output[0]], values[node.input[0]], axis)
    if empty:
        raise UsageError("There are no inputs to run the graph with.", "What was not measured has no range.")
    return tuple(found.values())


def _unmeasured(graph: StepwiseGraph) -> dict[str, TensorRange]:
    """Return a range for every float32 tensor, in graph order; those of initialisers are complete."""
    inputs = (name for name in graph.inputs if graph.is_float32(name))
    found = {name: TensorRange(tensor=name, node=name, op="", kind="input") for name in inputs}
    for node in graph.nodes:
        for name in node.input:
            weight = graph.weights.get(name)
            if weight is not None and weight.dtype == np.float32 and name not in found:
                found[name] = _with_values(TensorRange(tensor=name, node=name, op="", kind="weight"), weight)
        kind: Kind = "weight" if node.op_type == "Constant" else "node"
        for name in node.output:
            if graph.is_float32(name):
                found[name] = TensorRange(tensor=name, node=node.name or name, op=node.op_type, kind=kind)
    return found


def _with_values(found: TensorRange, array: Array) -> TensorRange:
    """Return the range that a tensor has with these values too."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        magnitudes = np.abs(flat[start : start + BLOCK])
        values, largest = magnitudes.size, magnitudes.max()
        if not np.isfinite(largest):
            magnitudes = magnitudes[np.isfinite(magnitudes)]
            largest = magnitudes.max(initial=0)
        smallest = float(magnitudes.min(where=magnitudes > 0, initial=np.inf))
        nonzero, below = int(np.count_nonzero(magnitudes)), {**found.below}
        for precision, limits in FORMATS.items():
            if smallest < limits.smallest_normal:
                zeros = magnitudes.size - nonzero
                below[precision] += int(np.count_nonzero(magnitudes < limits.smallest_normal)) - zeros
        found = replace(
            found,
            absmax=max(found.absmax, float(largest)),
            smallest=min(found.smallest or math.inf, smallest) if found.nonzero + nonzero else None,
            values=found.values + values,
            nonzero=found.nonzero + nonzero,
            below=below,
            nonfinite=found.nonfinite + values - magnitudes.size,
        )
    return found


def _with_squares(found: TensorRange, array: Array, axis: int) -> TensorRange:
    """Return the range of a LayerNormalization over the axes from `axis` on, with this input taken in."""
    if not array.size:
        return found
    axes = tuple(range(axis % array.ndim, array.ndim))
    with np.errstate(invalid="ignore"):  # inf - inf: counted as non-finite where it comes from
        mean = array.mean(axes, dtype=np.float64)
        deviation = np.maximum(array.max(axes) - mean, mean - array.min(axes))
    largest = float(deviation.max(where=np.isfinite(deviation), initial=0))
    return replace(found, squared_absmax=max(found.squared_absmax or 0.0, largest**2))
