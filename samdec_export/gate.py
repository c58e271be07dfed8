"""The flow of a validation: a file against eager PyTorch, and a converted one against the oracle of its types too."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export import interrupts
from samdec_export.artifact import Artifact, Record
from samdec_export.errors import GraphError, UsageError, ValidationError
from samdec_export.feeds import NamedFeeds, only_case, read_feeds, sweep_feeds
from samdec_export.files import sha256
from samdec_export.options import SweepName

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.models.graphs import ExportGraph
    from samdec_export.validation.tolerances import Tolerance
    from samdec_export.validation.validate import Comparison, ValidationResult

__all__ = ["Validated", "check", "load_for", "open_artifact", "replay_words", "select_cases", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A validation, and the command that runs its worst case again.

    `results` holds a result for each comparison, the engine against eager PyTorch first. `notes` say what could not be
    compared on this machine, and why.
    """

    results: tuple[ValidationResult, ...]
    replay: str
    notes: tuple[str, ...] = ()

    @property
    def result(self) -> ValidationResult:
        """The first comparison that failed, or else the first."""
        return next((result for result in self.results if not result.passed), self.results[0])

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        from samdec_export.validation.report import to_json

        return to_json(self.results, self.replay, self.notes)

    def require(self) -> None:
        """Do nothing if it passed.

        Raises:
            ValidationError: It did not; the message names the worst case and how to run it again.
        """
        from samdec_export.validation.report import failure_message

        if not self.result.passed:
            raise ValidationError(failure_message(self.result), f"Replay: {self.replay}")


def validate(
    path: Path,
    checkpoint: Path | None = None,
    *,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int = 0,
    sweep: SweepName = "full",
) -> Validated:
    """Compare an exported or converted file with eager PyTorch.

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
    artifact = open_artifact(path)
    cases = select_cases(artifact.record, feeds=feeds, case=case, seed=seed, sweep=sweep)
    loaded = load_for(artifact, checkpoint)
    return check(artifact, loaded, cases, replay_words(path, checkpoint, seed, feeds, sweep))


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


def load_for(artifact: Artifact, checkpoint: Path | None) -> LoadedModel:
    """The decoder that an artifact was exported from.

    Raises:
        UsageError: No checkpoint where one is needed.
        CheckpointError, GraphError: As the stages say.
    """
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_model
        from samdec_export.models.registry import MODELS

    record = artifact.record
    if checkpoint is None and record.checkpoint.file is not None:
        raise UsageError(
            f"{artifact.path} was exported from {record.checkpoint.file}: the reference needs it.",
            "Name the checkpoint with --ckpt.",
        )
    if record.model not in MODELS:
        raise GraphError(
            f"The record in {artifact.path} names a model that is not known: {record.model!r}.", "Export it again."
        )
    return load_model(checkpoint, record.model)


def select_cases(
    record: Record, *, feeds: Path | None = None, case: str | None = None, seed: int = 0, sweep: SweepName = "full"
) -> list[NamedFeeds]:
    """Recorded inputs or a sweep, or one case of them by name.

    Raises:
        UsageError: There is no such case, or the recorded inputs do not fit.
    """
    cases = read_feeds(feeds, record.signature) if feeds else sweep_feeds(record.signature, sweep, seed)
    return cases if case is None else only_case(cases, case)


def check(
    artifact: Artifact,
    loaded: LoadedModel,
    cases: list[NamedFeeds],
    replay: Sequence[str],
    *,
    tolerance: Tolerance | None = None,
    evidence: bool = False,
) -> Validated:
    """Run every comparison that this precision calls for.

    Args:
        artifact: What to judge.
        loaded: The decoder with the checkpoint's weights.
        cases: Inputs.
        replay: The words of the command that runs this again.
        tolerance: What may differ; None for what the precision may.
        evidence: Gather how errors are spread, and the worst masks.

    Raises:
        GraphError: The record does not fit the model, or an engine refuses the file.
        DependencyError: An engine is not installed.
    """
    from samdec_export.validation.evidence import Evidence
    from samdec_export.validation.validate import validate

    record = artifact.record
    graph = _reference_graph(artifact, loaded)
    findings = []
    if loaded.checkpoint.weights_sha256 != record.checkpoint.weights_sha256:
        findings.append(
            f"the weights of {loaded.checkpoint.file} are not those that {artifact.path.name} was made from"
        )
    comparisons, notes = _comparisons(artifact, graph, tolerance)
    if evidence:
        comparisons = [replace(comparison, evidence=Evidence()) for comparison in comparisons]
    results = validate(comparisons, record.signature, cases, tuple(findings))
    validated = Validated(results=results, replay="", notes=notes)
    worst = validated.result.worst
    return replace(validated, replay=shlex.join([*replay, "--case", worst.case if worst else ""]))


def replay_words(
    path: Path, checkpoint: Path | None, seed: int = 0, feeds: Path | None = None, sweep: SweepName = "full"
) -> list[str]:
    """The words of the command that runs a validation again."""
    words = ["samdec-export", "validate", str(path)]
    words += ["--ckpt", str(checkpoint)] if checkpoint else []
    words += ["--feeds", str(feeds)] if feeds else ["--seed", str(seed), "--sweep", sweep]
    return words


def _reference_graph(artifact: Artifact, loaded: LoadedModel) -> ExportGraph:
    """The definition as written, with the artifact's contract."""
    from samdec_export.models.graphs import build_graph

    record = artifact.record
    graph = build_graph(loaded.decoder, record.grid, replace(record.options, arrangement="reference"))
    signature = graph.signature if record.io == "fp32" else graph.signature.in_fp16()
    if signature != record.signature:
        raise GraphError(
            f"The record in {artifact.path} is not that of a {record.graph} graph of {record.model}.",
            "It is damaged, or of another version of samdec-export: export it again.",
        )
    return graph


def _comparisons(
    artifact: Artifact, graph: ExportGraph, tolerance: Tolerance | None
) -> tuple[list[Comparison], tuple[str, ...]]:
    """Engine against eager; in low precision also the oracle against eager, and the engine against the oracle.

    The oracle rounds as the types say: ONNX Runtime's CPU provider computes fp16 in fp32, and would hide an overflow.
    """
    from samdec_export.backends.eager import EagerRunner
    from samdec_export.backends.ort import OrtRunner
    from samdec_export.validation.tolerances import TOLERANCES
    from samdec_export.validation.validate import Comparison

    record = artifact.record
    tolerance = tolerance or TOLERANCES[record.precision]
    eager, exact = EagerRunner(graph, record.signature), EagerRunner(graph, record.signature, exact=True)
    if record.precision == "fp32":
        engine = OrtRunner(artifact.path)
        return [Comparison(candidate=engine, reference=eager, exact=exact, tolerance=tolerance)], ()
    from samdec_export.backends.oracle import OracleRunner

    oracle = OracleRunner(artifact.path)
    rounded = Comparison(candidate=oracle, reference=eager, exact=exact, tolerance=tolerance)
    if record.precision == "bf16":
        return [rounded], ("ONNX Runtime's CPU provider has no bf16 kernels: only the oracle was compared.",)
    engine = OrtRunner(artifact.path)
    user = Comparison(candidate=engine, reference=eager, exact=exact, tolerance=tolerance)
    own = Comparison(candidate=engine, reference=oracle, exact=None, tolerance=tolerance)
    return [user, rounded, own], ()
