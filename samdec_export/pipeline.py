"""The whole flow: a checkpoint goes in, a proven ONNX file comes out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export import interrupts
from samdec_export.artifact import Artifact, Record, publish, tool_versions
from samdec_export.errors import GraphError, NoRecordError, UsageError, ValidationError
from samdec_export.feeds import NamedFeeds, only_case, read_feeds, sweep_feeds
from samdec_export.files import sha256, staging
from samdec_export.log import step
from samdec_export.options import DEFAULT_OPSET, GraphOptions, SweepName

if TYPE_CHECKING:
    from samdec_export.doctor import Diagnosis
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.models.graphs import ExportGraph
    from samdec_export.models.registry import ModelSpec
    from samdec_export.passes.describe import GraphSummary
    from samdec_export.validation.validate import ValidationResult

__all__ = ["Exported", "Inspected", "Validated", "diagnose", "export", "inspect", "models", "open_artifact", "validate"]

EXPORT_TOOLS = ("samdec-export", "torch", "onnx", "onnxscript", "onnxslim")
"""Packages whose versions decide the bytes of an exported file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A validation, and the command that runs its worst case again."""

    result: ValidationResult
    replay: str

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        from samdec_export.validation.report import to_json

        return to_json(self.result, self.replay)

    def require(self) -> None:
        """Do nothing if it passed.

        Raises:
            ValidationError: It did not; the message names the worst case and how to run it again.
        """
        from samdec_export.validation.report import failure_message

        if not self.result.passed:
            raise ValidationError(failure_message(self.result), f"Replay: {self.replay}")


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
    """What an ONNX file holds; `record` is None where samdec-export did not write it."""

    path: Path
    summary: GraphSummary
    record: Record | None

    def to_json(self) -> dict[str, Any]:
        """Graph and record as JSON."""
        record = self.record.to_json() if self.record else None
        return {"path": str(self.path), "graph": self.summary.to_json(), "record": record}


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
        checkpoint: A checkpoint file or Hugging Face folder; None for the embedded `sam_tiny`.
        model: The model's name, for a checkpoint that does not tell.
        options: Which graph.
        opset: ONNX opset, 17 to 20.
        out: The folder to write to.
        sweep: How wide to validate; None not to. A failed validation is in the result, not raised.

    Raises:
        CheckpointError, GraphError, UsageError, DependencyError: As the stages say. Nothing is left in `out`.
    """
    with interrupts.deferred():
        from samdec_export.export import export_onnx
        from samdec_export.models.checkpoint import load_model
        from samdec_export.models.graphs import build_graph
        from samdec_export.passes.describe import describe, stamp
        from samdec_export.passes.lint import lint
        from samdec_export.passes.lower_opset import lower_opset
        from samdec_export.passes.simplify import simplify

    with staging(out) as scratch:
        loaded = load_model(checkpoint, model)
        graph = build_graph(loaded.decoder, loaded.grid, options)
        traced, draft = scratch / "traced.onnx", scratch / "simplified.onnx"
        with step(f"Exporting {loaded.spec.name} {options.graph}"):
            export_onnx(graph, graph.signature, traced, opset)
        with step("Simplifying"):
            simplify(traced, draft)
            if opset == 17:
                lower_opset(draft, draft)
        record = _record(loaded, options, opset, graph)
        with step("Checking"):
            stamp(draft, record.to_metadata())
            lint(draft, record.signature)
        before, after = describe(traced), describe(draft)
        artifact = publish(draft, record, out)
    cases = sweep_feeds(record.signature, sweep, 0) if sweep else []
    validated = (
        _validate(artifact, loaded, cases, _replay(artifact.path, checkpoint, 0, sweep=sweep)) if sweep else None
    )
    return Exported(artifact=artifact, before=before, after=after, validated=validated)


def validate(
    path: Path,
    checkpoint: Path | None = None,
    *,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int = 0,
    sweep: SweepName = "full",
) -> Validated:
    """Compare an exported file with eager PyTorch.

    Args:
        path: The ONNX file.
        checkpoint: What it was exported from; None where the weights are embedded.
        feeds: Recorded inputs, an `.npz` file, instead of a sweep.
        case: The only case to run, by name.
        seed: What the inputs follow from.
        sweep: How wide to go.

    Raises:
        UsageError: No checkpoint where one is needed, or there is no such case.
        CheckpointError, GraphError, DependencyError: As the stages say.
    """
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_model

    artifact = open_artifact(path)
    record = artifact.record
    if checkpoint is None and record.checkpoint.file is not None:
        raise UsageError(
            f"{path} was exported from {record.checkpoint.file}: the reference needs it.",
            "Name the checkpoint with --ckpt.",
        )
    cases = read_feeds(feeds, record.signature) if feeds else sweep_feeds(record.signature, sweep, seed)
    if case is not None:
        cases = only_case(cases, case)
    if record.model not in {spec.name for spec in models()}:
        raise GraphError(f"The record in {path} names a model that is not known: {record.model!r}.", "Export it again.")
    loaded = load_model(checkpoint, record.model)
    return _validate(artifact, loaded, cases, _replay(path, checkpoint, seed, feeds, sweep))


def inspect(path: Path) -> Inspected:
    """What an ONNX file holds, and how it was made if samdec-export made it.

    Raises:
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    from samdec_export.passes.describe import describe

    summary = describe(path)
    try:
        record = open_artifact(path).record
    except NoRecordError:
        record = None
    return Inspected(path=path, summary=summary, record=record)


def models() -> list[ModelSpec]:
    """The models that can be exported."""
    from samdec_export.models.registry import MODELS

    return list(MODELS.values())


def diagnose() -> Diagnosis:
    """What is installed and what can run here."""
    from samdec_export.backends.eager import cuda_device
    from samdec_export.backends.ort import installed_providers
    from samdec_export.doctor import diagnose

    return diagnose(cuda_device(), installed_providers())


def _record(loaded: LoadedModel, options: GraphOptions, opset: int, graph: ExportGraph) -> Record:
    return Record(
        format="onnx",
        precision="fp32",
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


def open_artifact(path: Path) -> Artifact:
    """The artifact at `path`: its record from the file itself, checked against the sidecar if there is one.

    Raises:
        NoRecordError: samdec-export did not write it.
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    from samdec_export.passes.describe import describe

    record = Record.from_metadata(describe(path).metadata, path)
    artifact = Artifact(path=path, record=record, sha256=sha256(path))
    artifact.check_sidecar()
    return artifact


def _validate(artifact: Artifact, loaded: LoadedModel, cases: list[NamedFeeds], replay: list[str]) -> Validated:
    from samdec_export.backends.eager import EagerRunner
    from samdec_export.backends.ort import OrtRunner
    from samdec_export.models.graphs import build_graph
    from samdec_export.validation.tolerances import TOLERANCES
    from samdec_export.validation.validate import validate

    record = artifact.record
    graph = build_graph(loaded.decoder, record.grid, replace(record.options, arrangement="reference"))
    if graph.signature != record.signature:
        raise GraphError(
            f"The record in {artifact.path} is not that of a {record.graph} graph of {record.model}.",
            "It is damaged, or of another version of samdec-export: export it again.",
        )
    findings = []
    if loaded.checkpoint.weights_sha256 != record.checkpoint.weights_sha256:
        findings.append(
            f"the weights of {loaded.checkpoint.file} are not those that {artifact.path.name} was made from"
        )
    result = validate(
        OrtRunner(artifact.path),
        EagerRunner(graph, record.signature),
        EagerRunner(graph, record.signature, exact=True),
        record.signature,
        cases,
        TOLERANCES[record.precision],
        tuple(findings),
    )
    worst = result.worst.case if result.worst else ""
    return Validated(result=result, replay=shlex.join([*replay, "--case", worst]))


def _replay(
    path: Path, checkpoint: Path | None, seed: int, feeds: Path | None = None, sweep: SweepName = "full"
) -> list[str]:
    """The words of the command that runs this validation again."""
    words = ["samdec-export", "validate", str(path)]
    words += ["--ckpt", str(checkpoint)] if checkpoint else []
    words += ["--feeds", str(feeds)] if feeds else ["--seed", str(seed), "--sweep", sweep]
    return words
