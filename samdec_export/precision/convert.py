"""A conversion: an fp32 file goes in, one in fp16 or bf16 comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.artifact import Artifact, publish
from samdec_export.core.dtypes import FORMATS
from samdec_export.core.errors import GraphError, NoRecordError
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.files import staging
from samdec_export.core.log import step
from samdec_export.core.packages import CONVERT, tool_versions
from samdec_export.core.signature import Signature
from samdec_export.export.cost import Product, fp32_products, shares_by_type, usual_products
from samdec_export.export.dataflow import Dataflow, load_fp32
from samdec_export.export.lint import lint
from samdec_export.export.onnx_file import describe, load, open_artifact, stamp
from samdec_export.parity.metrics import mask_metrics
from samdec_export.precision.autocast import autocast
from samdec_export.precision.convolution_products import convolutions_to_products
from samdec_export.precision.keep import asked_for, keep_by_range, keep_by_rule, keep_cheap, stored_low
from samdec_export.precision.options import Conversion
from samdec_export.precision.ranges import TensorRange, audit_ranges
from samdec_export.precision.search import SearchResult, search

__all__ = ["ConvertedFile", "convert_file", "open_fp32"]

LEAST_SHARE = 0.9
"""Of the operations of matrix products: a conversion that leaves less in the wanted type was not worth its name."""

PROBES = 3
"""Cases that a search measures on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFile:
    """A converted file: its casts, its matrix products by type, and what a search found.

    `ranges` holds what the fp32 file's tensors held, if that was measured.
    """

    artifact: Artifact
    parent: Path
    casts: int
    shares: Mapping[str, float]
    ranges: Sequence[TensorRange]
    search: SearchResult | None

    def to_json(self) -> dict[str, Any]:
        """Return everything, the record among it."""
        found = self.search
        return {
            "path": str(self.artifact.path),
            "artifact": self.artifact.to_json(),
            "bytes": self.artifact.path.stat().st_size,
            "parent": {"path": str(self.parent), "bytes": self.parent.stat().st_size},
            "casts": self.casts,
            "matrix_products": dict(self.shares),
            "search": found
            and {
                "target": found.target,
                "before": found.before,
                "after": found.after,
                "measured": found.measured,
                "units": [{"nodes": list(unit.nodes), "without": unit.without} for unit in found.units],
            },
        }


def convert_file(source: Artifact, wanted: Conversion, cases: Sequence[NamedFeeds], out: Path) -> ConvertedFile:
    """Convert the fp32 file that `open_fp32` returns, into the folder `out`.

    Ranges and flips are measured on the `cases` that are usual.

    Raises:
        GraphError: Too few of the matrix products would be in the wanted type.
        UsageError, DependencyError: As the passes say. Nothing is left in `out`.
    """
    with staging(out) as scratch:
        draft, graph = scratch / "converted.onnx", source
        if wanted.precision == "bf16":  # in which ONNX has no convolutions
            graph = replace(source, path=scratch / "products.onnx")
            with step("Writing convolutions as products"):
                convolutions_to_products(source.path, graph.path)
        flops = {product.node: product.flops for product in usual_products(graph.path, source.record.signature)}
        usual = [case for case in cases if case.usual]
        kept, ranges = _protected(graph, wanted, usual, flops) if wanted.protect else ({}, ())
        kept |= asked_for(source.path, wanted.keep_fp32)
        found = _search(graph, wanted, kept, usual, draft, flops) if wanted.max_flips is not None else None
        if found:
            kept |= {node: f"search: {unit.without:.2%} flip without it" for unit in found.units for node in unit.nodes}
        with step(f"Converting to {wanted.precision}"):
            signature = _write(graph, wanted, kept, draft)
        products = usual_products(draft, signature)
        if wanted.all_matmuls and (stayed := fp32_products(products)):
            raise GraphError(
                f"{{all_matmuls}}: {len(stayed)} of the matmuls must stay in fp32: {_reasons(stayed, kept)}.",
                "Leave out {all_matmuls}, or the {keep_fp32} that names them.",
            )
        _require_share(products, wanted, kept)
        record = replace(
            source.record,
            precision=wanted.precision,
            io=wanted.io,
            parent=source.sha256,
            conversion=wanted.to_json(),
            kept=dict(sorted(kept.items())),
            signature=signature,
            tools=tool_versions(*CONVERT),
        )
        with step("Checking"):
            stamp(draft, record.to_metadata())
            lint(draft, signature)
        casts = describe(draft).ops.get("Cast", 0)
        artifact = publish(draft, record, out)
    return ConvertedFile(
        artifact=artifact, parent=source.path, casts=casts, shares=shares_by_type(products), ranges=ranges, search=found
    )


def open_fp32(path: Path) -> Artifact:
    """Return the exported fp32 file at `path`; raise a GraphError if it is not one, or carries no record."""
    try:
        source = open_artifact(path)
    except NoRecordError as error:
        load_fp32(path)
        raise NoRecordError(
            f"{path} carries no record: its axes' ranges, and what to compare it with, are not known.",
            "Convert a file that samdec-export onnx wrote.",
        ) from error
    if source.record.precision != "fp32":
        raise GraphError(
            f"{path} is {source.record.precision} already.",
            f"Convert the fp32 file that it was made from, sha256 {source.record.parent[:12]}...",
        )
    return source


def _protected(
    source: Artifact, wanted: Conversion, cases: Sequence[NamedFeeds], flops: Mapping[str, int]
) -> tuple[dict[str, str], Sequence[TensorRange]]:
    """Return what the rules and the measured ranges keep, and those ranges."""
    with step("Measuring ranges"):
        ranges = audit_ranges(source.path, (case.make() for case in cases))
    absmax = {found.tensor: math.inf if found.nonfinite else found.absmax for found in ranges}
    by_range = keep_by_range(source.path, wanted.precision, absmax, wanted.margin)
    if wanted.all_matmuls:
        return by_range | keep_by_rule(source.path), ranges
    scores = [spec.name for spec in source.record.signature.outputs if spec.content == "scores"]
    return keep_cheap(source.path, flops) | by_range | keep_by_rule(source.path, scores), ranges


def _write(source: Artifact, wanted: Conversion, kept: Mapping[str, str], draft: Path) -> Signature:
    """Write the typed graph into `draft`; returns its signature."""
    signature = source.record.signature if wanted.io == "fp32" else source.record.signature.in_fp16()
    autocast(
        source.path,
        draft,
        wanted.precision,
        keep=kept,
        stored_low=stored_low(kept),
        low_inputs=[spec.name for spec in signature.inputs if spec.dtype == "float16"],
        low_outputs=[spec.name for spec in signature.outputs if spec.dtype == "float16"],
    )
    return signature


def _search(
    source: Artifact,
    wanted: Conversion,
    kept: Mapping[str, str],
    cases: Sequence[NamedFeeds],
    draft: Path,
    flops: Mapping[str, int],
) -> SearchResult:
    """Find more nodes to keep, until few enough mask pixels flip."""
    assert wanted.max_flips is not None
    signature = source.record.signature
    (masks, *_) = (spec.name for spec in signature.outputs if spec.content == "masks")
    engine = OrtRunner(source.path)
    probes = [(feeds, engine.run(feeds)[masks]) for feeds in (case.make() for case in cases[:PROBES])]
    pixels = sum(expected.size for _, expected in probes)

    def measure(more: frozenset[str]) -> float:
        _write(source, replace(wanted, io="fp32"), {**kept, **dict.fromkeys(more, "")}, draft)
        oracle = OracleRunner(draft)
        flipped = sum(
            mask_metrics(expected, oracle.run(feeds)[masks]).flipped * expected.size for feeds, expected in probes
        )
        note(f"{flipped / pixels:.3%} flip with {len(more)} nodes more")
        return flipped / pixels

    total = sum(flops.values())
    weights = {node: count / total for node, count in flops.items()}
    budget = 1 - LEAST_SHARE - sum(weights.get(node, 0.0) for node in kept)
    flow = Dataflow(load(source.path))
    nodes = [node.name for node in flow.nodes.values() if flow.float_outputs(node) and node.name not in kept]
    with step("Searching for what to keep in fp32") as note:
        found = search(nodes, measure, wanted.max_flips, weights=weights, budget=budget)
    if not found.reached:
        raise GraphError(
            f"{found.after:.3%} of the mask pixels flip with all that was found kept in fp32 ({found.before:.3%} with "
            f"none of it), and {{max_flips}} is {wanted.max_flips:.3%}.",
            "Allow more flips, or stay with fp32.",
        )
    return found


def _require_share(products: Sequence[Product], wanted: Conversion, kept: Mapping[str, str]) -> None:
    low = FORMATS[wanted.precision].dtype
    share = shares_by_type(products).get(low, 0.0)
    if share >= LEAST_SHARE:
        return
    stayed = [product.node for product in products if product.dtype != low]
    raise GraphError(
        f"Only {share:.1%} of the operations of matrix products would be {wanted.precision}: {_reasons(stayed, kept)}.",
        f"At least {LEAST_SHARE:.0%} must be: keep less in fp32, or stay with fp32.",
    )


def _reasons(nodes: Sequence[str], kept: Mapping[str, str]) -> str:
    return "; ".join(f"{node} ({kept.get(node, 'beside a kept one')})" for node in nodes)
