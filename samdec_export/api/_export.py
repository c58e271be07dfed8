"""From a checkpoint to a checked ONNX file, compared with eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact
from samdec_export.core.files import FilePath, as_path, optional_path, staging
from samdec_export.core.options import ExportOptions, GraphOptions, SweepName
from samdec_export.export.to_onnx import simplify_graph, trace_graph
from samdec_export.parity.cases import select_cases
from samdec_export.parity.comparisons import Replay, Validated, check
from samdec_export.parity.options import SweepOptions

if TYPE_CHECKING:
    from samdec_export.export.onnx_file import GraphSummary

__all__ = ["Exported", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported file, its graph before and after simplification, and its validation if there was one."""

    artifact: Artifact
    before: GraphSummary
    after: GraphSummary
    validated: Validated | None

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's content, operator counts and the report."""
        return {
            "path": str(self.artifact.path),
            "artifact": self.artifact.to_json(),
            "ops": {"before": self.before.ops, "after": self.after.ops},
            "validation": self.validated.to_json() if self.validated else None,
        }


def export(
    checkpoint: FilePath | None = None,
    model: str | None = None,
    *,
    options: GraphOptions = GraphOptions(),  # noqa: B008  # frozen
    out: FilePath = ExportOptions.out,
    sweep: SweepName = SweepOptions.sweep,
    validate: bool = True,
) -> Exported:
    """Export a checkpoint's decoder as a simplified ONNX file with a sidecar, and compare it with eager PyTorch.

    Args:
        checkpoint: A checkpoint file or Hugging Face folder; None for the embedded `sam_toy`, or a model that needs
            none.
        model: The model's name, for a checkpoint that does not tell.
        options: Which graph, with which axes and masks, in which opset.
        out: The folder to write to.
        sweep: How wide to validate.
        validate: False to export without comparing. A failed validation is in the result, not raised.

    Raises:
        CheckpointError, GraphError, UsageError, DependencyError: Nothing is left in `out`.
    """
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_model
        from samdec_export.models.record import graph_to_export

    source, folder = optional_path(checkpoint), as_path(out)
    with staging(folder) as scratch:
        loaded = load_model(source, model)
        traced = scratch / "traced.onnx"
        trace_graph(*graph_to_export(loaded, options), traced)
        done = simplify_graph(traced, scratch, folder)
    validated = None
    if validate:
        cases = select_cases(done.artifact.record, sweep=sweep)
        replay = Replay(file=done.artifact.path, checkpoint=source, seed=SweepOptions.seed, sweep=sweep)
        validated = check(done.artifact, loaded, cases, replay)
    return Exported(artifact=done.artifact, before=done.before, after=done.after, validated=validated)
