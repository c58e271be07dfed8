"""A file, or an engine, compared with eager PyTorch or with its recorded answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from samdec_export.backends.candidates import Candidate, open_candidate
from samdec_export.core.artifact import Artifact
from samdec_export.core.choices import options_of
from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import FeedsCache, NamedFeeds
from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.core.options import Provider, SweepName
from samdec_export.parity.cases import only_case, outside_ranges, range_notes, select_cases
from samdec_export.parity.comparisons import Replay, Validated, comparisons_of, judge
from samdec_export.parity.golden import open_golden
from samdec_export.parity.measure import Comparison
from samdec_export.parity.options import CaseOptions
from samdec_export.parity.record import Recorded, write_polygraphy
from samdec_export.parity.references import Reference, open_outputs, references_of

__all__ = ["golden", "validate"]

WIDEST: Final[SweepName] = "full"
"""How wide a validation of its own goes, which a deployment waits for; those on the way go as is declared."""


def validate(
    file: FilePath,
    checkpoint: FilePath | None = None,
    *,
    golden: FilePath | None = None,
    outputs: FilePath | None = None,
    feeds: FilePath | None = None,
    case: str | None = None,
    seed: int | None = None,
    sweep: SweepName | None = None,
    provider: Provider | None = None,
) -> Validated:
    """Compare an exported or converted file, or an engine, with eager PyTorch.

    Args:
        file: The ONNX file or the engine.
        checkpoint: What it was exported from; None where the weights are embedded.
        golden: Inputs and eager PyTorch's answers to them, which `record` wrote: neither torch nor checkpoint is used.
        outputs: What an engine answered elsewhere, as Polygraphy writes it, to be judged instead of running `file`.
        feeds: Recorded inputs instead of a sweep: an `.npz` file, or Polygraphy's `.json`.
        case: The only case to run, by name.
        seed: Seed of the generated inputs; None for 0.
        sweep: How wide to go; None for `full`. An engine's sweep stays within its profiles.
        provider: Where ONNX Runtime runs; None for the CPU.

    Raises:
        UsageError: No checkpoint where one is needed, there is no such case, a recording is damaged or does not fit, or
            an option has no place beside `golden`.
        ValidationError: The golden is of another contract.
        CheckpointError, GraphError, EngineError, DependencyError: As the stages say.
    """
    path, weights, recorded = as_path(file), optional_path(checkpoint), optional_path(feeds)
    answers, elsewhere = optional_path(golden), optional_path(outputs)
    if answers is not None:
        _refuse_beside_golden({"checkpoint": weights, "feeds": recorded, "seed": seed, "sweep": sweep})
    seed, width = CaseOptions.seed if seed is None else seed, sweep or WIDEST
    asked = CaseOptions(sweep=width, seed=seed, feeds=recorded, case=case)
    candidate = open_candidate(path, provider)
    artifact = candidate.artifact
    kept = open_golden(answers) if answers else None
    cases = (
        kept.cases()
        if kept
        else select_cases(artifact.record, feeds=recorded, seed=seed, sweep=width, within=candidate.signatures)
    )
    if elsewhere:
        cases = FeedsCache().keep(cases)  # to know what was answered elsewhere, and to run
    chosen = cases if case is None else only_case(cases, case)
    chosen, left_out = _within_profiles(candidate, chosen)
    references = references_of(candidate, weights, kept)
    if elsewhere is not None:
        comparisons, notes = _recorded_elsewhere(artifact, references[-1], elsewhere, cases)
    else:
        comparisons, notes = comparisons_of(candidate, references)
    notes += left_out + (range_notes(artifact.record, chosen) if answers or recorded else ())
    facts = {"checkpoint": weights, "outputs": elsewhere, "golden": answers, "provider": provider}
    replay = options_of(Replay, asked, file=path, **facts)
    return judge(artifact, comparisons, chosen, replay, references[-1].findings, notes)


def _refuse_beside_golden(options: Mapping[str, object]) -> None:
    given = [f"{{{name}}}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{{golden}} brings inputs and reference with it: {', '.join(given)} would have no effect.",
            "Leave that out; {case} picks one of the golden's cases.",
        )


def _recorded_elsewhere(
    artifact: Artifact, reference: Reference, outputs: Path, cases: list[NamedFeeds]
) -> tuple[list[Comparison], tuple[str, ...]]:
    """Compare what engines answered elsewhere with the reference, by the limits of the artifact's precision."""
    engines = open_outputs(outputs, cases)
    note = f"{artifact.path} itself was not run: {outputs} holds what was answered elsewhere."
    return [reference.against(engine, artifact.record.precision) for engine in engines], (note,)


def _within_profiles(candidate: Candidate, cases: list[NamedFeeds]) -> tuple[list[NamedFeeds], tuple[str, ...]]:
    """Return the cases that an engine takes, and a note on the others; ONNX Runtime takes every size."""
    if candidate.engine is None:
        return cases, ()
    inside = [case for case in cases if any(not outside_ranges(ranges, [case]) for ranges in candidate.signatures)]
    left_out = len(cases) - len(inside)
    note = f"{left_out} of {len(cases)} cases are outside the engine's profiles and were not run."
    return inside, (note,) if left_out else ()


def golden(
    file: FilePath, *, polygraphy_inputs: FilePath | None = None, polygraphy_outputs: FilePath | None = None
) -> Recorded:
    """Return what a golden holds, and write it as Polygraphy's files where they are named.

    Args:
        file: What `record` wrote.
        polygraphy_inputs: The file to write for `polygraphy run --load-inputs`.
        polygraphy_outputs: The file to write for `polygraphy run --load-outputs`.

    Raises:
        UsageError: The golden is missing, damaged or of another schema, or a file cannot be written.
        DependencyError: Polygraphy is not installed.
    """
    found = Recorded(golden=open_golden(as_path(file)))
    write_polygraphy(found, optional_path(polygraphy_inputs), optional_path(polygraphy_outputs))
    return found
