"""The flow of a validation: a file against eager PyTorch, here or recorded; a converted one against an oracle too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.candidates import Candidate, open_runners
from samdec_export.core.artifact import Artifact
from samdec_export.core.errors import ValidationError
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.options import Provider, SweepName
from samdec_export.core.plain import to_plain
from samdec_export.core.results import Tolerance, ValidationResult, severity_of
from samdec_export.core.spelling import command_line
from samdec_export.parity.measure import Comparison
from samdec_export.parity.references import Reference, eager_references
from samdec_export.parity.validate import validate

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel

__all__ = ["Replay", "Validated", "check", "comparisons_of", "judge"]

SCHEMA_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a validation was of, so that it can be run again: a file, what it was compared with, and on which inputs.

    `outputs` is what engines answered elsewhere, `golden` inputs and reference in one, `case` the one to run again.
    """

    file: Path
    checkpoint: Path | None = None
    outputs: Path | None = None
    golden: Path | None = None
    feeds: Path | None = None
    seed: int
    sweep: SweepName
    provider: Provider | None = None
    case: str | None = None

    @property
    def command(self) -> str:
        """Return the command that runs it again; a golden brings its inputs along, and so do recorded ones."""
        swept = self.golden is None and self.feeds is None
        return command_line(
            "validate",
            self.file,
            checkpoint=self.checkpoint,
            outputs=self.outputs,
            golden=self.golden,
            feeds=self.feeds if self.golden is None else None,
            seed=self.seed if swept else None,
            sweep=self.sweep if swept else None,
            provider=self.provider,
            case=self.case,
        )


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
        """Return every comparison; infinite numbers, which JSON lacks, become null."""
        report: dict[str, Any] = to_plain(
            {
                "schema_version": SCHEMA_VERSION,
                "passed": all(result.passed for result in self.results),
                "replay": self.replay,
                "notes": self.notes,
                "comparisons": [
                    {
                        "passed": result.passed,
                        "reference": result.reference,
                        "candidate": result.candidate,
                        "tolerance": result.limits,
                        "allowed": result.allowed,
                        "floors": result.floors,
                        "findings": result.findings,
                        "tilts": result.tilts,
                        "worst_case": result.worst.case if result.worst else None,
                        "cases": result.cases,
                    }
                    for result in self.results
                ],
            }
        )
        return report

    def require(self) -> None:
        """Raise a ValidationError unless it passed: how many cases failed, which is the worst, why, and its replay."""
        result = self.result
        if result.passed:
            return
        failed = [case for case in result.cases if not case.passed]
        reasons = list(result.findings)
        if failed and result.worst:
            gravest = max(result.worst.violations, key=severity_of)
            where = " ".join(part for part in (gravest.output, gravest.metric) if part)
            reasons.append(
                f"{len(failed)} of {len(result.cases)} cases; worst {result.worst.case}: {where}: {gravest.detail}"
            )
        raise ValidationError(
            f"{result.candidate} does not equal {result.reference}: {'; '.join(reasons)}.", f"Replay: {self.replay}"
        )


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

    The candidate None stands for the artifact in ONNX Runtime on the CPU, the tolerance None for what the candidate's
    rounding may differ by. `evidence` gathers how errors are spread, and the worst masks.

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
