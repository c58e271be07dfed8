"""Which nodes stay in fp32 when a graph is converted, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from samdec_export.core.dtypes import FORMATS, Precision
from samdec_export.core.errors import UsageError
from samdec_export.export.dataflow import MATRIX_PRODUCTS, Dataflow
from samdec_export.export.onnx_file import load
from samdec_export.precision.autocast import MOVES
from samdec_export.precision.options import ConvertOptions

__all__ = ["CHEAP_SHARE", "asked_for", "keep_by_range", "keep_by_rule", "keep_cheap", "stored_low"]

CHEAP: Final = "cheap"
"""How the reasons of `keep_cheap` begin."""

CHEAP_SHARE: Final = 0.04
"""Of the operations of all matmuls: what is kept in fp32 because it costs next to nothing. In a decoder these are the
token-to-token matmuls: a fifth off the pixels that flip, half off the error of predicted IoUs."""

NORMALISATIONS = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"})
SPELLED_OUT = frozenset({"Sub", "Pow", "Mul", "ReduceMean", "ReduceSumSquare", "Add", "Sqrt", "Reciprocal", "Div"})
"""What a normalisation is made of where it is not one operator."""

COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Floor", "Ceil", "Round"})


def keep_by_rule(path: Path, scores: Sequence[str] = ()) -> dict[str, str]:
    """Return nodes whose arithmetic needs fp32 whatever the weights are: name and reason.

    Args:
        path: The fp32 graph.
        scores: Its outputs by which masks are ranked.

    Raises:
        GraphError: The file cannot be read.
    """
    flow = Dataflow(load(path))
    kept: dict[str, str] = {}
    for name in _normalisations(flow):
        kept.setdefault(name, "normalisation: squares and their mean leave the range first")
    waves = [node.name for node in flow.nodes.values() if node.op_type in ("Sin", "Cos")]
    for name in flow.ancestors(waves):
        kept.setdefault(name, "positional encoding: a phase of many turns loses its fraction")
    whole = [node.name for node in flow.nodes.values() if _is_decision(node)]
    for name in flow.ancestors(whole, stop=MATRIX_PRODUCTS):
        kept.setdefault(name, "coordinates, labels and sizes: whole numbers are decided on them")
    for name in _only_for(flow, scores):
        kept.setdefault(name, "scores: masks are ranked by them, and they take a few matmuls of a few rows")
    for node in flow.nodes.values():
        if node.op_type == "Resize":
            kept.setdefault(node.name, "resizing: weights follow from coordinates")
    return kept


def keep_cheap(path: Path, flops: Mapping[str, int]) -> dict[str, str]:
    """Return the cheapest matmuls, as many as `CHEAP_SHARE` allows, and what only joins kept nodes: name and reason.

    Args:
        path: The fp32 graph.
        flops: The operations of each matrix product, by node.

    Raises:
        GraphError: The file cannot be read.
    """
    flow = Dataflow(load(path))
    left = CHEAP_SHARE * sum(flops.values())
    kept = dict.fromkeys(_normalisations(flow), "")  # others keep them; here they are neighbours
    cheap: dict[str, str] = {}
    for node in sorted(flops, key=lambda name: flops[name]):  # cheapest first, until the share is used up
        left -= flops[node]
        if left < 0:
            break
        cheap[node] = f"{CHEAP}: token-to-token matmuls, which all that follows depends on"
    between = _between(flow, {*kept, *cheap})
    return cheap | dict.fromkeys(sorted(between), f"{CHEAP}: between nodes in fp32, where a cast would cost more")


def stored_low(kept: Mapping[str, str]) -> frozenset[str]:
    """Return the kept nodes that compute exactly with weights that need not be: those are most of a file's bytes.

    Args:
        kept: Nodes in fp32 with reasons, as the functions of this module give them.
    """
    return frozenset(node for node, reason in kept.items() if reason.startswith(CHEAP))


def keep_by_range(
    path: Path, precision: Precision, absmax: Mapping[str, float], margin: float = ConvertOptions.margin
) -> dict[str, str]:
    """Return nodes that read or make a tensor which may leave the range of `precision`: name and reason.

    Args:
        path: The fp32 graph.
        precision: The wanted one.
        absmax: The largest magnitude measured in each tensor, by name.
        margin: How many times below the largest number it must stay.

    Raises:
        GraphError: The file cannot be read.
    """
    flow = Dataflow(load(path))
    limit = FORMATS[precision].largest / margin
    kept = {}
    for node in flow.nodes.values():
        for tensor in (*flow.float_inputs(node), *flow.float_outputs(node)):
            if not absmax.get(tensor, 0.0) <= limit:  # NaN too
                kept[node.name] = f"range: {tensor} reaches {absmax[tensor]:.3g}, the limit is {limit:.3g}"
    return kept


def asked_for(path: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Return nodes whose name or operator a user's pattern matches: name and reason.

    Raises:
        UsageError: A pattern matches nothing.
        GraphError: The file cannot be read.
    """
    nodes = list(Dataflow(load(path)).nodes.values())
    kept: dict[str, str] = {}
    for pattern in patterns:
        found = [node.name for node in nodes if _matches(node, pattern)]
        if not found:
            raise UsageError(
                f"{{keep_fp32}} {pattern!r} matches no node and no operator of {path}.",
                "samdec-export ranges lists nodes; operators are such as Softmax; * stands for anything.",
            )
        kept |= dict.fromkeys(found, f"asked for: {pattern}")
    return kept


def _between(flow: Dataflow, kept: set[str]) -> set[str]:
    """Return nodes that compute, no matmuls, whose neighbours, seen through moves, are all kept or such nodes."""
    found = {
        node.name
        for node in flow.nodes.values()
        if node.op_type not in MATRIX_PRODUCTS | MOVES and flow.float_outputs(node) and node.name not in kept
    }
    # Strike out whatever has a neighbour in low precision, until nothing more falls: its neighbours may fall with it.
    neighbours = {name: {*_seen(flow, name, forward=True), *_seen(flow, name, forward=False)} for name in found}
    while strays := {name for name in found if not neighbours[name] <= kept | found}:
        found -= strays
    return found


def _seen(flow: Dataflow, name: str, *, forward: bool) -> Iterator[str]:
    """Yield the nearest nodes behind (or before) a node that do more than move numbers."""
    node = flow.nodes[name]
    if forward:
        nearest = [flow.nodes[reader] for tensor in flow.float_outputs(node) for reader in flow.readers[tensor]]
    else:
        nearest = list(flow.sources(node))
    for other in nearest:
        if other.op_type in MOVES:
            yield from _seen(flow, other.name, forward=forward)
        else:
            yield other.name


def _only_for(flow: Dataflow, outputs: Sequence[str]) -> set[str]:
    """Return the nodes that nothing but these outputs follows from."""
    others = [value.name for value in flow.model.graph.output if value.name not in outputs]
    # What follows backwards from these outputs, less what the other outputs need too.
    own, shared = (
        flow.ancestors(flow.makers[name] for name in names if name in flow.makers) for names in (outputs, others)
    )
    return own - shared


def _matches(node: onnx.NodeProto, pattern: str) -> bool:
    return fnmatchcase(node.name, pattern) or fnmatchcase(node.op_type, pattern)


def _is_decision(node: onnx.NodeProto) -> bool:
    if node.op_type == "Cast":
        return any(
            attribute.i in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL) for attribute in node.attribute
        )
    return node.op_type in COMPARISONS


def _normalisations(flow: Dataflow) -> Iterator[str]:
    """Yield normalisations: operators, and those spelled out, back from each square root to the means."""
    roots = [node for node in flow.nodes.values() if node.op_type == "Sqrt"]
    yield from (node.name for node in flow.nodes.values() if node.op_type in NORMALISATIONS)
    for root in roots:
        chain = _chain(flow, root)
        if any(flow.nodes[name].op_type in ("ReduceMean", "ReduceSumSquare") for name in chain):
            yield from chain
            yield from _users(flow, [root.name])


def _chain(flow: Dataflow, root: onnx.NodeProto) -> list[str]:
    """Return the nodes from a square root back through what it is the root of: variance, squares, differences, mean."""
    found: list[str] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.name in found:
            continue
        found.append(node.name)
        # sqrt(mean((x - mean(x))^2) + epsilon): once past the mean of squares, an Add is no longer that of epsilon but
        # one that makes x, such as a residual, and is none of the normalisation's business.
        means = any(flow.nodes[name].op_type == "ReduceMean" for name in found)
        waiting += [
            source
            for source in flow.sources(node)
            if source.op_type in SPELLED_OUT and (source.op_type != "Add" or not means)
        ]
    return found


def _users(flow: Dataflow, names: Iterable[str]) -> Iterator[str]:
    """Yield the divisions and products behind a root."""
    for name in names:
        for tensor in flow.nodes[name].output:
            for reader in flow.readers[tensor]:
                node = flow.nodes[reader]
                if node.op_type in ("Div", "Reciprocal", "Mul"):
                    yield reader
                    if node.op_type == "Reciprocal":
                        yield from _users(flow, [reader])
