"""A traced graph becomes a checked ONNX file with its record: trace, simplify, lint, publish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact, Record, publish
from samdec_export.core.log import step
from samdec_export.core.packages import EXPORT, SIMPLIFY, tool_versions

if TYPE_CHECKING:
    from torch import nn

    from samdec_export.export.onnx_file import GraphSummary

__all__ = ["Simplified", "simplify_graph", "trace_graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplified:
    """A published file, and its graph before and after simplification."""

    artifact: Artifact
    before: GraphSummary
    after: GraphSummary


def trace_graph(graph: nn.Module, record: Record, path: Path) -> None:
    """Write a graph as torch's exporter leaves it, with the record of how it was made.

    Args:
        graph: What is exported: its forward takes and returns what the record's signature lists.
        record: How the file is made; opset 17 is reached by `simplify_graph`.
        path: The file to write.

    Raises:
        GraphError: It cannot be traced.
    """
    with interrupts.deferred():
        from samdec_export.export.onnx_file import stamp
        from samdec_export.export.trace import export_onnx

    with step(f"Exporting {record.model} {record.graph}"):
        export_onnx(graph, record.signature, path, record.opset)
        stamp(path, record.to_metadata())


def simplify_graph(traced: Path, scratch: Path, out: Path) -> Simplified:
    """Simplify a traced graph, check it, and publish it with its sidecar.

    Args:
        traced: What `trace_graph` wrote.
        scratch: A folder on the disk of `out`.
        out: The folder to write to.

    Raises:
        GraphError: It cannot be simplified, or breaks its contract.
    """
    from samdec_export.export.lint import lint
    from samdec_export.export.lower_opset import lower_opset
    from samdec_export.export.onnx_file import describe, stamp
    from samdec_export.export.simplify import simplify

    before, draft = describe(traced), scratch / "simplified.onnx"
    record = replace(Record.from_metadata(before.metadata, traced), tools=tool_versions(*EXPORT, *SIMPLIFY))
    with step("Simplifying"):
        simplify(traced, draft)
        if record.opset == 17:
            lower_opset(draft, draft)
    with step("Checking"):
        stamp(draft, record.to_metadata())
        lint(draft, record.signature)
    after = describe(draft)
    return Simplified(artifact=publish(draft, record, out), before=before, after=after)
