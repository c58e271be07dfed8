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
WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL})


def keep_by_rule(path: Path, scores: Sequence[str] = ()) -> dict[str, str]:
    """Return nodes whose arithmetic needs fp32 whatever the weights are: name and reason.

    `scores` are the outputs by which masks are ranked. Raises a GraphError if the fp32 file cannot be read.
    """
    flow = Dataflow(load(path))
    nodes = flow.nodes.values()
    waves = [node.name for node in nodes if node.op_type in ("Sin", "Cos")]
    whole = [node.name for node in nodes if node.op_type in COMPARISONS or _casts_to_whole(node)]
    # What the scores follow from, less what the other outputs need too.
    others = [value.name for value in flow.model.graph.output if value.name not in scores]
    ranking, shared = (
        flow.ancestors(flow.makers[name] for name in names if name in flow.makers) for names in (scores, others)
    )
    rules: dict[str, Iterable[str]] = {
        "normalisation: squares and their mean leave the range first": _normalisations(flow),
        "positional encoding: a phase of many turns loses its fraction": flow.ancestors(waves),
        "coordinates, labels and sizes: whole numbers are decided on them": flow.ancestors(whole, stop=MATRIX_PRODUCTS),
        "scores: masks are ranked by them, and they take a few matmuls of a few rows": ranking - shared,
        "resizing: weights follow from coordinates": [node.name for node in nodes if node.op_type == "Resize"],
    }
    kept: dict[str, str] = {}
    for reason, names in rules.items():
        for name in names:
            kept.setdefault(name, reason)
    return kept


def keep_cheap(path: Path, flops: Mapping[str, int]) -> dict[str, str]:
    """Return the cheapest matmuls, as many as `CHEAP_SHARE` allows, and what only joins kept nodes: name and reason.

    `flops` are the operations of each matmul, by node. Raises a GraphError if the fp32 file cannot be read.
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
    """Return the nodes of `keep_cheap`: they compute in fp32; their weights, most of a file's bytes, need not be."""
    return frozenset(node for node, reason in kept.items() if reason.startswith(CHEAP))


def keep_by_range(
    path: Path, precision: Precision, absmax: Mapping[str, float], margin: float = ConvertOptions.margin
) -> dict[str, str]:
    """Return nodes that read or make a tensor which may leave the range of `precision`: name and reason.

    `absmax` holds the largest magnitude measured in each tensor, which must stay `margin` times below the largest
    number. Raises a GraphError if the fp32 file cannot be read.
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
        found = [node.name for node in nodes if fnmatchcase(node.name, pattern) or fnmatchcase(node.op_type, pattern)]
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


def _casts_to_whole(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(attribute.i in WHOLE for attribute in node.attribute)


def _normalisations(flow: Dataflow) -> Iterator[str]:
    """Yield normalisations: operators, and those spelled out, back from each square root to the means."""
    yield from (node.name for node in flow.nodes.values() if node.op_type in NORMALISATIONS)
    for root in (node for node in flow.nodes.values() if node.op_type == "Sqrt"):
        chain = _chain(flow, root)
        if any(flow.nodes[name].op_type in ("ReduceMean", "ReduceSumSquare") for name in chain):
            yield from chain
            yield from _users(flow, root.name)


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


def _users(flow: Dataflow, name: str) -> Iterator[str]:
    """Yield the divisions and products behind a root."""
    for reader in (reader for tensor in flow.nodes[name].output for reader in flow.readers[tensor]):
        operator = flow.nodes[reader].op_type
        if operator in ("Div", "Reciprocal", "Mul"):
            yield reader
            if operator == "Reciprocal":
                yield from _users(flow, reader)
