"""From a checkpoint to a checked ONNX file, and from that to fp16 or bf16; each compared with eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.feeds import FeedsCache, typed_feeds
from samdec_export.core.files import FilePath, as_path, optional_path, staging
from samdec_export.core.options import ExportOptions, GraphOptions, SweepName
from samdec_export.export.to_onnx import simplify_graph, trace_graph
from samdec_export.parity.cases import range_notes, select_cases
from samdec_export.parity.comparisons import Replay, Validated, check
from samdec_export.parity.options import SweepOptions
from samdec_export.precision.convert import ConvertedFile, convert_file, open_fp32
from samdec_export.precision.options import Conversion

if TYPE_CHECKING:
    from samdec_export.export.onnx_file import GraphSummary

__all__ = ["Converted", "Exported", "convert", "export"]


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
        from samdec_export.models.sam.graphs import graph_to_export

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A converted file, and its validation if there was one."""

    file: ConvertedFile
    validated: Validated | None

    @property
    def artifact(self) -> Artifact:
        """Return the file and its record."""
        return self.file.artifact

    def to_json(self) -> dict[str, Any]:
        """Return everything, the record and the report among it."""
        return {**self.file.to_json(), "validation": self.validated.to_json() if self.validated else None}


def convert(
    file: FilePath,
    wanted: LowPrecision | Conversion,
    checkpoint: FilePath | None = None,
    *,
    out: FilePath | None = None,
    feeds: FilePath | None = None,
    sweep: SweepName = SweepOptions.sweep,
    validate: bool = True,
) -> Converted:
    """Convert an exported fp32 file to fp16 or bf16, and compare the result with eager fp32.

    Args:
        file: The fp32 file.
        wanted: `fp16` or `bf16`; a `Conversion` says more, such as what stays in fp32.
        checkpoint: What the file was exported from; None where the weights are embedded.
        out: The folder to write to; None for that of `file`.
        feeds: Recorded inputs to measure ranges and flips on, and to validate with, instead of a sweep's.
        sweep: How wide to measure and to validate.
        validate: False to convert without comparing, which needs no checkpoint. A failed validation is in the result,
            not raised.

    Raises:
        GraphError: The file is not fp32, carries no record, or too few of its products would be in the wanted type.
        CheckpointError, UsageError, DependencyError: As the stages say. Nothing is left in `out`.
    """
    path, weights, recorded = as_path(file), optional_path(checkpoint), optional_path(feeds)
    conversion = wanted if isinstance(wanted, Conversion) else Conversion(precision=wanted)
    source = open_fp32(path)
    cases = FeedsCache().keep(select_cases(source.record, feeds=recorded, sweep=sweep))
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_for

    loaded = load_for(source, weights) if validate else None
    done = convert_file(source, conversion, cases, optional_path(out) or path.parent)
    if loaded is None:
        return Converted(file=done, validated=None)
    signature = done.artifact.record.signature
    replay = Replay(file=done.artifact.path, checkpoint=weights, feeds=recorded, seed=SweepOptions.seed, sweep=sweep)
    notes = range_notes(source.record, cases) if recorded else ()
    validated = check(done.artifact, loaded, [typed_feeds(case, signature) for case in cases], replay, notes=notes)
    return Converted(file=done, validated=validated)
