"""What an artifact is held against: eager PyTorch here, or its answers from a golden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from samdec_export.backends.candidates import Candidate
from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact, Record
from samdec_export.core.dtypes import Precision
from samdec_export.core.errors import GraphError, UsageError, ValidationError
from samdec_export.core.feeds import NamedFeeds, arrays_sha256
from samdec_export.core.runner import Feeds, Outputs, Runner
from samdec_export.parity.golden import Golden
from samdec_export.parity.measure import Comparison
from samdec_export.parity.polygraphy import read_outputs
from samdec_export.parity.slices import SliceRunner
from samdec_export.parity.tolerances import TOLERANCES

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel

__all__ = ["RecordedRunner", "Reference", "eager_references", "open_outputs", "references_of"]


class RecordedRunner:
    """Knows its answers by the SHA-256 of the inputs: it cannot give those of another case by mistake.

    `name` is who answered then, and where that is kept.
    """

    def __init__(self, name: str, answers: Mapping[str, Callable[[], Outputs]]) -> None:
        self.name = name
        self.answers = answers

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs that were recorded for these inputs, bit for bit; raise a UsageError if there are none."""
        digest = arrays_sha256(feeds)
        if digest not in self.answers:
            raise UsageError(
                f"{self.name} holds no outputs for these inputs (sha256 {digest[:12]}...).",
                "Record them again, or give the inputs that they were recorded for.",
            )
        return self.answers[digest]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is right: a runner in fp32, and the same in float64 where it can be run.

    In place of `exact`, `known_floors` are the distances between the two, by case and output, as a share of the span.
    `findings` are reasons why nothing equals it.
    """

    runner: Runner
    exact: Runner | None = None
    known_floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def against(self, candidate: Runner, precision: Precision) -> Comparison:
        """Return a candidate of this precision, to be compared with what is right."""
        return Comparison(
            candidate=candidate,
            reference=self.runner,
            exact=self.exact,
            known_floors=self.known_floors,
            tolerance=TOLERANCES[precision],
        )


def references_of(candidate: Candidate, checkpoint: Path | None, golden: Golden | None) -> tuple[Reference, ...]:
    """Return what a file is held against: a golden if there is one, or else the checkpoint in eager PyTorch.

    With a golden, neither torch nor the checkpoint is needed. The checkpoint None stands for embedded weights.

    Raises:
        ValidationError: The golden is of another contract.
        CheckpointError, GraphError, UsageError, DependencyError: As the stages say.
    """
    artifact = candidate.artifact
    if golden is None:
        with interrupts.deferred():
            from samdec_export.models.checkpoint import load_for

        return eager_references(artifact, load_for(artifact, checkpoint), on_gpu=candidate.on_gpu)
    recorded = golden.record
    if differences := list(_differences(recorded.artifact, artifact.record)):
        raise ValidationError(
            f"{golden.path} was recorded for another contract than that of {artifact.path}: {'; '.join(differences)}.",
            f"Record one for this file: samdec-export record {artifact.path}.",
        )
    reference = Reference(
        runner=RecordedRunner(f"{recorded.reference} ({golden.path.name})", golden.answers()),
        known_floors={case.name: case.floors for case in recorded.cases},
        findings=_other_weights(golden.path.name, recorded.artifact.checkpoint.weights_sha256, artifact),
    )
    return (reference,)


def eager_references(artifact: Artifact, loaded: LoadedModel, *, on_gpu: bool = False) -> tuple[Reference, ...]:
    """Return the definition as written, with the artifact's contract, in eager PyTorch.

    On the GPU first where asked for, on the CPU last; each with the CPU's float64 beside it.

    Raises:
        GraphError: The record does not fit the model.
    """
    with interrupts.deferred():
        from samdec_export.backends.eager import EagerRunner
        from samdec_export.models.sam.graphs import build_graph

    record, signature = artifact.record, artifact.record.signature
    graph = build_graph(loaded.decoder, record.grid, replace(record.options, arrangement="reference"))
    if signature != (graph.signature if record.io == "fp32" else graph.signature.in_fp16()):
        raise GraphError(
            f"The record in {artifact.path} is not that of a {record.graph} graph of {record.model}.",
            "It is damaged, or of another version of samdec-export: export it again.",
        )
    exact = SliceRunner(EagerRunner(graph, signature, exact=True), signature)
    runners = [SliceRunner(EagerRunner(graph, signature, device="cuda"), signature)] if on_gpu else []
    runners.append(SliceRunner(EagerRunner(graph, signature), signature))
    findings = _other_weights(str(loaded.checkpoint.file), loaded.checkpoint.weights_sha256, artifact)
    return tuple(Reference(runner=runner, exact=exact, findings=findings) for runner in runners)


def open_outputs(path: Path, cases: Sequence[NamedFeeds]) -> list[RecordedRunner]:
    """Return what engines answered to `cases`, in that order, as Polygraphy wrote it: a runner for each of them.

    Raises:
        UsageError: It cannot be read, there is not one iteration for each case, or two cases are alike.
        DependencyError: Polygraphy is not installed.
    """
    digests = [arrays_sha256(case.make()) for case in cases]
    if len({*digests}) < len(digests):
        raise UsageError("Two cases have the same inputs: which answer belongs to which is not known.", "Keep one.")
    runners = []
    for name, iterations in read_outputs(path).items():
        if len(iterations) != len(cases):
            raise UsageError(
                f"{path} holds {len(iterations)} iterations of {name}, and there are {len(cases)} cases of inputs.",
                "Give the inputs that it was made with, as {feeds} or {golden}.",
            )
        answers: dict[str, Callable[[], Outputs]] = {
            digest: partial(dict, outputs) for digest, outputs in zip(digests, iterations, strict=True)
        }
        runners.append(RecordedRunner(f"{name} ({path.name})", answers))
    return runners


def _other_weights(origin: str, digest: str, artifact: Artifact) -> tuple[str, ...]:
    if digest == artifact.record.checkpoint.weights_sha256:
        return ()
    return (f"the weights of {origin} are not those that {artifact.path.name} was made from",)


def _differences(recorded: Record, record: Record) -> Iterator[str]:
    """Yield where two contracts differ. Ranges may: they say what a graph is tuned for, not what it means."""
    for name in ("grid", "graph", "masks", "mask_input", "dynamic_grid"):
        then, here = getattr(recorded, name), getattr(record, name)
        if then != here:
            yield f"{name} {then}, not {here}"
    for kind in ("inputs", "outputs"):
        then, here = (
            [(spec.name, spec.dtype, spec.labels) for spec in getattr(found.signature, kind)]
            for found in (recorded, record)
        )
        if then != here:
            changed = [tensor for tensor in then if tensor not in here] or then
            yield f"{kind} such as {' '.join(map(str, changed[0]))}"
