"""The flow of a golden: eager PyTorch is asked once, and its answers judge engines where there is no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from samdec_export.core import interrupts
from samdec_export.core.drawing import Case
from samdec_export.core.errors import ValidationError
from samdec_export.core.feeds import NamedFeeds, arrays_sha256
from samdec_export.core.files import FilePath, as_path, check_target, optional_path, staging
from samdec_export.core.log import track
from samdec_export.core.options import SweepName
from samdec_export.core.packages import RECORD, tool_versions
from samdec_export.core.runner import Feeds, Outputs
from samdec_export.core.signature import Signature
from samdec_export.export.onnx_file import open_artifact
from samdec_export.parity.cases import read_feeds
from samdec_export.parity.golden import Golden, GoldenCase, GoldenRecord, defects, open_golden, write_golden
from samdec_export.parity.metrics import measure_tensor
from samdec_export.parity.options import CaseOptions
from samdec_export.parity.polygraphy import write_inputs, write_outputs
from samdec_export.parity.references import Reference, eager_references
from samdec_export.parity.sweeps import sweep

__all__ = ["Recorded", "record", "write_polygraphy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A golden file and what it holds."""

    golden: Golden

    @property
    def path(self) -> Path:
        """Return where it is."""
        return self.golden.path

    def to_json(self) -> dict[str, Any]:
        """Return the record, and the file's size."""
        return {"path": str(self.path), "bytes": self.path.stat().st_size, "golden": self.golden.record.to_json()}


_Question: TypeAlias = tuple[NamedFeeds, Case | None]
"""A case to be asked, and how to make its inputs again; None where they have to be stored."""


def record(
    file: FilePath,
    checkpoint: FilePath | None = None,
    *,
    out: FilePath | None = None,
    feeds: FilePath | None = None,
    seed: int = CaseOptions.seed,
    sweep: SweepName = CaseOptions.sweep,
    keep_inputs: bool = False,
) -> Recorded:
    """Ask eager PyTorch over a sweep or recorded inputs, in fp32 and float64, and keep the answers.

    The golden serves every file with the contract and the weights of `file`: other precisions, arrangements, engines.

    Args:
        file: An exported file: the contract.
        checkpoint: What it was exported from; None where the weights are embedded.
        out: The file to write; None for `<file>.golden.npz` beside `file`.
        feeds: Recorded inputs instead of a sweep; they are stored.
        seed: What a sweep's inputs follow from.
        sweep: How wide to go.
        keep_inputs: Store a sweep's inputs too: ten times the size, and no version of NumPy can change them.

    Raises:
        ValidationError: The weights are not those of `file`, or eager PyTorch's answers are no reference.
        UsageError, CheckpointError, GraphError, DependencyError: As the stages say. Nothing is left of a failed run.
    """
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_for

    path, weights, recorded = as_path(file), optional_path(checkpoint), optional_path(feeds)
    CaseOptions(sweep=sweep, seed=seed, feeds=recorded)  # refuses what is out of bounds before the work
    artifact = open_artifact(path)
    target = optional_path(out) or path.with_suffix(".golden.npz")
    check_target(target, (path, artifact.sidecar, weights, recorded))
    signature = artifact.record.signature
    questions = _questions(signature, recorded, seed, sweep, keep_inputs)
    with staging(target.parent) as scratch:
        (reference,) = eager_references(artifact, load_for(artifact, weights))
        if reference.findings:
            raise ValidationError(
                f"Nothing was recorded: {'; '.join(reference.findings)}.", "Give its own as {checkpoint}."
            )
        draft = scratch / target.name
        whole = GoldenRecord(
            artifact=artifact.record,
            file=artifact.path.name,
            reference=reference.runner.name,
            seed=seed,
            tools=tool_versions(*RECORD),
        )
        write_golden(draft, whole, _recorded_cases(signature, reference, questions))
        with interrupts.deferred():
            os.replace(draft, target)
    return Recorded(golden=open_golden(target))


def write_polygraphy(recorded: Recorded, inputs: Path | None, outputs: Path | None) -> None:
    """Write a golden as the files that `polygraphy run` takes with --load-inputs and --load-outputs, or one of them.

    Raises:
        UsageError: A file cannot be written, or the golden is damaged.
        DependencyError: Polygraphy is not installed.
    """
    golden = recorded.golden
    answers = golden.answers()
    cases = (case.make() for case in golden.cases())
    outputs_of = (answers[case.inputs_sha256]() for case in golden.record.cases)
    writers = (
        (inputs, partial(write_inputs, cases=cases)),
        (outputs, partial(write_outputs, runner=golden.record.reference, cases=outputs_of)),
    )
    for target, write in writers:
        if target is None:
            continue
        check_target(target, (golden.path, inputs if target is outputs else None))
        with staging(target.parent) as scratch:
            write(scratch / target.name)
            os.replace(scratch / target.name, target)


def _questions(
    signature: Signature, feeds: Path | None, seed: int, width: SweepName, keep_inputs: bool
) -> list[_Question]:
    if feeds is not None:
        return [(case, None) for case in read_feeds(feeds, signature)]
    cases = sweep(signature, width)
    return [(NamedFeeds.of(signature, case, seed), None if keep_inputs else case) for case in cases]


def _recorded_cases(
    signature: Signature, reference: Reference, questions: Sequence[_Question]
) -> Iterator[tuple[GoldenCase, Feeds, Outputs]]:
    """Yield every question with the inputs to store and the answer, one at a time."""
    for question, seeded in track(questions, f"Recording {reference.runner.name}"):
        feeds = question.make()
        outputs = reference.runner.run(feeds)
        case = GoldenCase(
            name=question.name,
            sizes=question.sizes,
            first=seeded.first if seeded else 0,
            values=seeded.values if seeded else "normal",
            mask_input=seeded.mask_input if seeded else None,
            stored=seeded is None,
            inputs_sha256=arrays_sha256(feeds),
            floors=_floors(signature, question, reference, feeds, outputs),
        )
        yield case, {} if seeded else feeds, outputs


def _floors(
    signature: Signature, case: NamedFeeds, reference: Reference, feeds: Feeds, outputs: Outputs
) -> dict[str, float]:
    """Return each output's distance to float64, as a share of its span; raise if the outputs are no reference."""
    assert reference.exact is not None
    floors = {}
    if not (problems := defects(signature, case.sizes, outputs)):
        exact = reference.exact.run(feeds)
        floors = {
            spec.name: measure_tensor(spec, exact[spec.name], outputs[spec.name]).error for spec in signature.outputs
        }
        problems = [
            f"{name} is {floor:.2g} of its span from float64" for name, floor in floors.items() if not floor < 1
        ]
    if problems:
        raise ValidationError(
            f"{reference.runner.name} is no reference in case {case.name}: {'; '.join(problems)}.",
            "The checkpoint is damaged, or these inputs are unfit.",
        )
    return floors
