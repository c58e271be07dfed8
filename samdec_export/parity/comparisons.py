"""The flow of a validation: a file against eager PyTorch, here or recorded; a converted one against an oracle too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from samdec_export.backends.candidates import Candidate, open_runners
from samdec_export.core.artifact import Artifact
from samdec_export.core.errors import ValidationError
from samdec_export.core.feeds import NamedFeeds
from samdec_export.parity.references import Reference, eager_references
from samdec_export.parity.replay import Replay

if TYPE_CHECKING:
    from samdec_export.core.results import Tolerance, ValidationResult
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.parity.measure import Comparison

__all__ = [
    "Validated",
    "check",
    "comparisons_of",
    "judge",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A validation, and what runs its worst case again.

    `results` holds a result for each comparison, the engine against eager PyTorch first. `notes` say what could not be
    compared on this machine, and why.
    """

    results: tuple[ValidationResult, ...]
    rerun: Replay
    notes: tuple[str, ...] = ()

    @property
    def result(self) -> ValidationResult:
        """Return the first comparison that failed, or else the first."""
        return next((result for result in self.results if not result.passed), self.results[0])

    @property
    def replay(self) -> str:
        """Return the command that runs the worst case again."""
        return self.rerun.command

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
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


def check(
    artifact: Artifact,
    loaded: LoadedModel,
    cases: list[NamedFeeds],
    replay: Replay,
    candidate: Candidate | None = None,
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
        replay: What does this again.
        candidate: The file that is judged, and where; None for the artifact in ONNX Runtime on the CPU.
        notes: What the report is to say besides.
        tolerance: What may differ; None for what the candidate's rounding may.
        evidence: Gather how errors are spread, and the worst masks.

    Raises:
        GraphError: The record does not fit the model, or an engine refuses the file.
        DependencyError: An engine is not installed.
    """
    candidate = candidate or Candidate(artifact=artifact)
    references = eager_references(artifact, loaded, on_gpu=candidate.on_gpu)
    comparisons, missing = comparisons_of(candidate, references)
    comparisons = [
        replace(comparison, tolerance=tolerance or comparison.tolerance, evidence=evidence)
        for comparison in comparisons
    ]
    return judge(artifact, comparisons, cases, replay, references[-1].findings, (*missing, *notes))


def judge(
    artifact: Artifact,
    comparisons: list[Comparison],
    cases: list[NamedFeeds],
    replay: Replay,
    findings: tuple[str, ...],
    notes: tuple[str, ...],
) -> Validated:
    """Run the comparisons, and return what they found with what runs the worst case again."""
    from samdec_export.parity.validate import validate

    results = validate(comparisons, artifact.record.signature, cases, findings)
    validated = Validated(results=results, rerun=replay, notes=notes)
    worst = validated.result.worst
    return replace(validated, rerun=replace(replay, case=worst.case if worst else ""))


def comparisons_of(candidate: Candidate, references: Sequence[Reference]) -> tuple[list[Comparison], tuple[str, ...]]:
    """Compare the file with every reference; in low precision also an oracle with the last, and both together.

    The oracle rounds as the types say: ONNX Runtime's CPU provider computes fp16 in fp32, and would hide an overflow.
    """
    found, precision = open_runners(candidate), candidate.rounding
    comparisons = [reference.against(found.own, precision) for reference in references if found.own]
    if found.oracle:
        with_oracle = [references[-1].against(found.oracle, precision)]
        if found.own:
            with_oracle.append(Reference(runner=found.oracle).against(found.own, precision))
        comparisons += [replace(comparison, small_only=found.own is not None) for comparison in with_oracle]
    return comparisons, found.notes
