"""The flow of a validation: a file against eager PyTorch, here or recorded; a converted one against an oracle too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.candidates import Subject, contend, open_artifact, open_subject
from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact, Record
from samdec_export.core.errors import GraphError, UsageError, ValidationError
from samdec_export.core.feeds import NamedFeeds, only_case, outside_ranges, read_feeds, sweep_feeds
from samdec_export.core.options import Provider, SweepName
from samdec_export.core.signature import Signature
from samdec_export.parity.golden import open_golden
from samdec_export.parity.references import Reference, eager_references, golden_reference

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.parity.tolerances import Tolerance
    from samdec_export.parity.validate import Comparison, ValidationResult

__all__ = [
    "Validated",
    "check",
    "load_for",
    "open_artifact",
    "range_notes",
    "replay_words",
    "select_cases",
    "validate",
]

SHOWN = 4
"""Cases outside their ranges that a warning names."""


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
        from samdec_export.parity.summary import to_json

        return to_json(self.results, self.replay, self.notes)

    def require(self) -> None:
        """Do nothing if it passed.

        Raises:
            ValidationError: It did not; the message names the worst case and how to run it again.
        """
        from samdec_export.parity.summary import failure_message

        if not self.result.passed:
            raise ValidationError(failure_message(self.result), f"Replay: {self.replay}")


def validate(
    path: Path,
    checkpoint: Path | None = None,
    *,
    golden: Path | None = None,
    outputs: Path | None = None,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int | None = None,
    sweep: SweepName | None = None,
    provider: Provider | None = None,
) -> Validated:
    """Compare an exported or converted file, or an engine, with eager PyTorch.

    Args:
        path: The ONNX file or the engine.
        checkpoint: What it was exported from; None where the weights are embedded.
        golden: Inputs and eager PyTorch's answers to them, which `record` wrote: neither torch nor checkpoint is used.
        outputs: What an engine answered elsewhere, as Polygraphy writes it, to be judged instead of running `path`.
        feeds: Recorded inputs instead of a sweep: an `.npz` file, or Polygraphy's `.json`.
        case: The only case to run, by name.
        seed: What the inputs follow from; None for 0.
        sweep: How wide to go; None for `full`. An engine's sweep stays within its profiles.
        provider: Where ONNX Runtime runs; None for the CPU.

    Raises:
        UsageError: No checkpoint where one is needed, there is no such case, a recording is damaged or does not fit, or
            an option has no place beside `golden`.
        ValidationError: The golden is of another contract.
        CheckpointError, GraphError, EngineError, DependencyError: As the stages say.
    """
    if golden is not None:
        _refuse_beside_golden({"--ckpt": checkpoint, "--feeds": feeds, "--seed": seed, "--sweep": sweep})
    subject = open_subject(path, provider)
    artifact = subject.artifact
    kept = open_golden(golden) if golden else None
    seed, width = seed or 0, sweep or "full"
    cases = (
        kept.cases()
        if kept
        else select_cases(artifact.record, feeds=feeds, seed=seed, sweep=width, within=subject.signatures)
    )
    chosen = cases if case is None else only_case(cases, case)
    chosen, left_out = _within_profiles(subject, chosen)
    if kept:
        references: tuple[Reference, ...] = (golden_reference(artifact, kept),)
    else:
        references = eager_references(artifact, load_for(artifact, checkpoint), on_gpu=subject.on_gpu)
    if outputs is not None:
        comparisons, notes = _recorded_elsewhere(artifact, references[-1], outputs, cases)
    else:
        comparisons, notes = _comparisons(subject, references)
    notes += left_out + (range_notes(artifact.record, chosen) if golden or feeds else ())
    words = replay_words(path, checkpoint, seed, feeds, width, golden, outputs)
    words += ["--provider", provider] if provider else []
    return _judge(artifact, comparisons, chosen, words, references[-1].findings, notes)


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
    notes: tuple[str, ...] = (),
    *,
    tolerance: Tolerance | None = None,
    evidence: bool = False,
) -> Validated:
    """Run every comparison with eager PyTorch that this precision calls for.

    Args:
        artifact: What the graph is.
        loaded: What it was made from.
        cases: Inputs.
        replay: The words of the command that does this again.
        subject: The file that is judged, and where; None for the artifact in ONNX Runtime on the CPU.
        notes: What the report is to say besides.
        tolerance: What may differ; None for what the subject's rounding may.
        evidence: Gather how errors are spread, and the worst masks.

    Raises:
        GraphError: The record does not fit the model, or an engine refuses the file.
        DependencyError: An engine is not installed.
    """
    from samdec_export.parity.evidence import Evidence

    subject = subject or Subject(artifact=artifact)
    references = eager_references(artifact, loaded, on_gpu=subject.on_gpu)
    comparisons, missing = _comparisons(subject, references)
    if tolerance:
        comparisons = [replace(comparison, tolerance=tolerance) for comparison in comparisons]
    if evidence:
        comparisons = [replace(comparison, evidence=Evidence()) for comparison in comparisons]
    return _judge(artifact, comparisons, cases, replay, references[-1].findings, (*missing, *notes))


def range_notes(record: Record, cases: list[NamedFeeds]) -> tuple[str, ...]:
    """A warning where inputs leave the ranges that a file was made for; it may well be right there."""
    found = outside_ranges(record.signature, cases)
    if not found:
        return ()
    shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return (f"warning: outside the ranges that the file was made for: {shown}.",)


def _judge(
    artifact: Artifact,
    comparisons: list[Comparison],
    cases: list[NamedFeeds],
    replay: Sequence[str],
    findings: tuple[str, ...],
    notes: tuple[str, ...],
) -> Validated:
    from samdec_export.parity.validate import validate

    results = validate(comparisons, artifact.record.signature, cases, findings)
    validated = Validated(results=results, replay="", notes=notes)
    worst = validated.result.worst
    return replace(validated, replay=shlex.join([*replay, "--case", worst.case if worst else ""]))


def replay_words(
    path: Path,
    checkpoint: Path | None,
    seed: int = 0,
    feeds: Path | None = None,
    sweep: SweepName = "full",
    golden: Path | None = None,
    outputs: Path | None = None,
) -> list[str]:
    """The words of the command that runs a validation again."""
    words = ["samdec-export", "validate", str(path)]
    words += ["--ckpt", str(checkpoint)] if checkpoint else []
    words += ["--outputs", str(outputs)] if outputs else []
    if golden:
        return [*words, "--golden", str(golden)]
    words += ["--feeds", str(feeds)] if feeds else ["--seed", str(seed), "--sweep", sweep]
    return words


def _comparisons(subject: Subject, references: Sequence[Reference]) -> tuple[list[Comparison], tuple[str, ...]]:
    """The file itself against every reference; in low precision also an oracle against the last, and the two together.

    The oracle rounds as the types say: ONNX Runtime's CPU provider computes fp16 in fp32, and would hide an overflow.
    """
    found, precision = contend(subject), subject.rounding
    comparisons = [reference.against(found.own, precision) for reference in references if found.own]
    if found.oracle:
        comparisons.append(references[-1].against(found.oracle, precision))
    if found.oracle and found.own:
        comparisons.append(Reference(runner=found.oracle).against(found.own, precision))
    return comparisons, found.notes


def _recorded_elsewhere(
    artifact: Artifact, reference: Reference, outputs: Path, cases: list[NamedFeeds]
) -> tuple[list[Comparison], tuple[str, ...]]:
    """What engines answered elsewhere against the reference, by the limits of the artifact's precision."""
    from samdec_export.parity.recorded import open_outputs

    engines = open_outputs(outputs, cases)
    note = f"{artifact.path} itself was not run: {outputs} holds what was answered elsewhere."
    return [reference.against(engine, artifact.record.precision) for engine in engines], (note,)


def _within_profiles(subject: Subject, cases: list[NamedFeeds]) -> tuple[list[NamedFeeds], tuple[str, ...]]:
    """The cases that an engine takes, and a note on the others; ONNX Runtime takes every size."""
    if subject.engine is None:
        return cases, ()
    inside = [case for case in cases if any(not outside_ranges(ranges, [case]) for ranges in subject.signatures)]
    left_out = len(cases) - len(inside)
    note = f"{left_out} of {len(cases)} cases are outside the engine's profiles and were not run."
    return inside, (note,) if left_out else ()


def _refuse_beside_golden(options: Mapping[str, object]) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"--golden brings inputs and reference with it: {', '.join(given)} would have no effect.",
            "Leave that out; --case picks one of the golden's cases.",
        )
