"""The flow of a validation: a file against eager PyTorch, and a converted one against the oracle of its types too."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export import interrupts
from samdec_export.artifact import Artifact, Record
from samdec_export.candidates import Subject, contend, open_artifact, open_subject
from samdec_export.errors import GraphError, UsageError, ValidationError
from samdec_export.feeds import NamedFeeds, only_case, read_feeds, sweep_feeds
from samdec_export.options import Provider, SweepName
from samdec_export.signature import Signature

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.models.graphs import ExportGraph
    from samdec_export.runner import Runner
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
    provider: Provider | None = None,
) -> Validated:
    """Compare an exported or converted file, or an engine, with eager PyTorch.

    Args:
        path: The ONNX file or the engine.
        checkpoint: What it was exported from; None where the weights are embedded.
        feeds: Recorded inputs, an `.npz` file, instead of a sweep.
        case: The only case to run, by name.
        seed: What the inputs follow from.
        sweep: How wide to go; an engine's sweep stays within its profiles.
        provider: Where ONNX Runtime runs; None for the CPU.

    Raises:
        UsageError: No checkpoint where one is needed, or there is no such case.
        CheckpointError, GraphError, EngineError, DependencyError: As the stages say.
    """
    subject = open_subject(path, provider)
    artifact = subject.artifact
    cases = select_cases(artifact.record, feeds=feeds, case=case, seed=seed, sweep=sweep, within=subject.signatures)
    loaded = load_for(artifact, checkpoint)
    words = replay_words(path, checkpoint, seed, feeds, sweep)
    return check(artifact, loaded, cases, [*words, *(["--provider", provider] if provider else [])], subject)


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
    record: Record,
    *,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int = 0,
    sweep: SweepName = "full",
    within: Sequence[Signature] = (),
) -> list[NamedFeeds]:
    """Recorded inputs or a sweep, or one case of them by name.

    A sweep goes over the record's ranges, or over those of each signature in `within`, every case once.

    Raises:
        UsageError: There is no such case, or the recorded inputs do not fit.
    """
    if feeds:
        cases = read_feeds(feeds, record.signature)
    else:
        found = (item for signature in within or (record.signature,) for item in sweep_feeds(signature, sweep, seed))
        cases = [*{item.name: item for item in found}.values()]
    return cases if case is None else only_case(cases, case)


def check(
    artifact: Artifact,
    loaded: LoadedModel,
    cases: list[NamedFeeds],
    replay: Sequence[str],
    subject: Subject | None = None,
    *,
    tolerance: Tolerance | None = None,
    evidence: bool = False,
) -> Validated:
    """Run every comparison that this precision calls for.

    Args:
        artifact: What the graph is.
        loaded: What it was made from.
        cases: Inputs.
        replay: The words of the command that does this again.
        subject: The file that is judged, and where; None for the artifact in ONNX Runtime on the CPU.
        tolerance: What may differ; None for what the subject's rounding may.
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
    comparisons, notes = _comparisons(subject or Subject(artifact=artifact), graph, tolerance)
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
    subject: Subject, graph: ExportGraph, tolerance: Tolerance | None
) -> tuple[list[Comparison], tuple[str, ...]]:
    """The file itself against eager; in low precision also the oracle against eager, and the file against the oracle.

    The oracle rounds as the types say: ONNX Runtime's CPU provider computes fp16 in fp32, and would hide an overflow.
    """
    from samdec_export.validation.tolerances import TOLERANCES
    from samdec_export.validation.validate import Comparison

    tolerance = tolerance or TOLERANCES[subject.rounding]
    found = contend(subject, graph)
    pairs: list[tuple[Runner, Runner, Runner | None]] = [
        (found.own, reference, found.exact) for reference in found.references if found.own
    ]
    if found.oracle:
        pairs.append((found.oracle, found.references[-1], found.exact))
    if found.oracle and found.own:
        pairs.append((found.own, found.oracle, None))
    comparisons = [
        Comparison(candidate=candidate, reference=reference, exact=exact, tolerance=tolerance)
        for candidate, reference, exact in pairs
    ]
    return comparisons, found.notes
