"""The whole flow: a checkpoint goes in, a proven ONNX file comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact, Record, publish, tool_versions
from samdec_export.core.errors import NoRecordError
from samdec_export.core.files import staging
from samdec_export.core.log import step
from samdec_export.core.options import DEFAULT_OPSET, GraphOptions, SweepName
from samdec_export.parity.comparisons import Validated, check, open_artifact, replay_words, select_cases, validate

if TYPE_CHECKING:
    from samdec_export.backends.doctor import Diagnosis
    from samdec_export.export.onnx_file import GraphSummary
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.models.registry import ModelSpec
    from samdec_export.models.sam.graphs import ExportGraph

__all__ = [
    "EXPORT_TOOLS",
    "Exported",
    "Inspected",
    "Validated",
    "diagnose",
    "export",
    "inspect",
    "models",
    "open_artifact",
    "simplify_graph",
    "trace_graph",
    "validate",
]

EXPORT_TOOLS = ("samdec-export", "torch", "onnx", "onnxscript", "onnxslim")
"""Packages whose versions decide the bytes of an exported file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported file, its graph before and after simplification, and its validation if there was one."""

    artifact: Artifact
    before: GraphSummary
    after: GraphSummary
    validated: Validated | None

    def to_json(self) -> dict[str, Any]:
        """The sidecar's content, operator counts and the report."""
        return {
            "path": str(self.artifact.path),
            "artifact": self.artifact.to_json(),
            "ops": {"before": self.before.ops, "after": self.after.ops},
            "validation": self.validated.to_json() if self.validated else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What an ONNX file holds; `record` is None where samdec-export did not write it.

    `shares` is the part of the operations of matrix products in each type, empty without a record.
    """

    path: Path
    summary: GraphSummary
    record: Record | None
    shares: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Graph and record as JSON."""
        record = self.record.to_json() if self.record else None
        graph = self.summary.to_json()
        return {"path": str(self.path), "graph": graph, "matrix_products": dict(self.shares), "record": record}


def export(
    checkpoint: Path | None,
    model: str | None = None,
    *,
    options: GraphOptions = GraphOptions(),  # noqa: B008  # frozen
    opset: int = DEFAULT_OPSET,
    out: Path = Path("artifacts"),
    sweep: SweepName | None = "quick",
) -> Exported:
    """Export a checkpoint's decoder as a simplified ONNX file with a sidecar, and validate it.

    Args:
        checkpoint: A checkpoint file or Hugging Face folder; None for a model that needs none.
        model: The model's name, for a checkpoint that does not tell; without a checkpoint `sam_toy` by default.
        options: Which graph.
        opset: ONNX opset, 17 to 20.
        out: The folder to write to.
        sweep: How wide to validate; None not to. A failed validation is in the result, not raised.

    Raises:
        CheckpointError, GraphError, UsageError, DependencyError: As the stages say. Nothing is left in `out`.
    """
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_model

    with staging(out) as scratch:
        loaded = load_model(checkpoint, model)
        traced = scratch / "traced.onnx"
        trace_graph(loaded, options, opset, traced)
        done = simplify_graph(traced, scratch, out)
    if sweep is None:
        return done
    cases = select_cases(done.artifact.record, sweep=sweep)
    replay = replay_words(done.artifact.path, checkpoint, sweep=sweep)
    return replace(done, validated=check(done.artifact, loaded, cases, replay))


def trace_graph(loaded: LoadedModel, options: GraphOptions, opset: int, path: Path) -> None:
    """Write the graph as torch's exporter leaves it, with the record of how it was made.

    Args:
        loaded: The decoder.
        options: Which graph.
        opset: The wanted opset; opset 17 is reached by `simplify_graph`.
        path: The file to write.

    Raises:
        GraphError: It cannot be traced.
    """
    with interrupts.deferred():
        from samdec_export.export.onnx_file import stamp
        from samdec_export.export.trace import export_onnx
        from samdec_export.models.sam.graphs import build_graph

    graph = build_graph(loaded.decoder, loaded.grid, options)
    with step(f"Exporting {loaded.spec.name} {options.graph}"):
        export_onnx(graph, graph.signature, path, opset)
        stamp(path, _record(loaded, options, opset, graph).to_metadata())


def simplify_graph(traced: Path, scratch: Path, out: Path) -> Exported:
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
    record = replace(Record.from_metadata(before.metadata, traced), tools=tool_versions(*EXPORT_TOOLS))
    with step("Simplifying"):
        simplify(traced, draft)
        if record.opset == 17:
            lower_opset(draft, draft)
    with step("Checking"):
        stamp(draft, record.to_metadata())
        lint(draft, record.signature)
    after = describe(draft)
    return Exported(artifact=publish(draft, record, out), before=before, after=after, validated=None)


def inspect(path: Path) -> Inspected:
    """What an ONNX file holds, and how it was made if samdec-export made it.

    Raises:
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    from samdec_export.export.cost import product_shares
    from samdec_export.export.onnx_file import describe

    summary = describe(path)
    try:
        record = open_artifact(path).record
    except NoRecordError:
        return Inspected(path=path, summary=summary, record=None, shares={})
    return Inspected(path=path, summary=summary, record=record, shares=product_shares(path, record.signature))


def models() -> list[ModelSpec]:
    """The models that can be exported."""
    from samdec_export.models.registry import MODELS

    return list(MODELS.values())


def diagnose() -> Diagnosis:
    """What is installed and what can run here."""
    from samdec_export.backends.doctor import diagnose
    from samdec_export.backends.eager import cuda_device
    from samdec_export.backends.machine import look
    from samdec_export.backends.ort import installed_providers

    machine = look()
    builders = {"tensorrt": machine.obstacle("tensorrt"), "tensorrt_rtx": machine.obstacle("rtx")}
    return diagnose(cuda_device(), installed_providers(), builders)


def _record(loaded: LoadedModel, options: GraphOptions, opset: int, graph: ExportGraph) -> Record:
    return Record(
        format="onnx",
        precision="fp32",
        io="fp32",
        parent="",
        conversion={},
        kept={},
        model=loaded.spec.name,
        grid=loaded.grid,
        graph=options.graph,
        masks=options.masks_mode,
        mask_input=options.mask_input,
        dynamic_grid=options.dynamic_grid,
        arrangement=options.arrangement,
        choices=graph.choices,
        opset=opset,
        checkpoint=loaded.checkpoint,
        signature=graph.signature,
        tools=tool_versions(*EXPORT_TOOLS),
    )
