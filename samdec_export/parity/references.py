"""What an artifact is held against: eager PyTorch here, or its answers from a golden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact, Record
from samdec_export.core.dtypes import Precision
from samdec_export.core.errors import GraphError, ValidationError
from samdec_export.core.runner import Runner
from samdec_export.parity.golden import Golden
from samdec_export.parity.slices import SliceRunner

if TYPE_CHECKING:
    from pathlib import Path

    from samdec_export.backends.candidates import Candidate
    from samdec_export.models.checkpoint import LoadedModel
    from samdec_export.models.sam.graphs import ExportGraph
    from samdec_export.parity.measure import Comparison

__all__ = ["Reference", "eager_references", "golden_reference", "references_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is right.

    Args:
        runner: Answers in fp32.
        exact: The same in float64; None where it cannot be run.
        known_floors: In place of `exact`: the distance between the two, by case and output, as a share of the span.
        findings: Reasons why nothing equals it.
    """

    runner: Runner
    exact: Runner | None = None
    known_floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def against(self, candidate: Runner, precision: Precision) -> Comparison:
        """Return a candidate of this precision, to be compared with what is right."""
        from samdec_export.parity.measure import Comparison
        from samdec_export.parity.tolerances import TOLERANCES

        return Comparison(
            candidate=candidate,
            reference=self.runner,
            exact=self.exact,
            known_floors=self.known_floors,
            tolerance=TOLERANCES[precision],
        )


def references_of(candidate: Candidate, checkpoint: Path | None, golden: Golden | None) -> tuple[Reference, ...]:
    """Return what a file is held against: a golden if there is one, or else the checkpoint in eager PyTorch.

    Args:
        candidate: The file.
        checkpoint: What it was exported from; None where the weights are embedded.
        golden: What eager PyTorch answered before; neither torch nor the checkpoint is needed then.

    Raises:
        ValidationError: The golden is of another contract.
        CheckpointError, GraphError, UsageError, DependencyError: As the stages say.
    """
    if golden is not None:
        return (golden_reference(candidate.artifact, golden),)
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_for

    return eager_references(candidate.artifact, load_for(candidate.artifact, checkpoint), on_gpu=candidate.on_gpu)


def eager_references(artifact: Artifact, loaded: LoadedModel, *, on_gpu: bool = False) -> tuple[Reference, ...]:
    """Return the definition as written, with the artifact's contract, in eager PyTorch.

    Args:
        artifact: The contract.
        loaded: The weights.
        on_gpu: On the GPU too.

    Returns:
        On the GPU where asked for; on the CPU last. Each has the CPU's float64 beside it.

    Raises:
        GraphError: The record does not fit the model.
    """
    with interrupts.deferred():
        from samdec_export.backends.eager import EagerRunner

    signature = artifact.record.signature
    graph = _definition(artifact, loaded)
    exact = SliceRunner(EagerRunner(graph, signature, exact=True), signature)
    runners = [SliceRunner(EagerRunner(graph, signature, device="cuda"), signature)] if on_gpu else []
    runners.append(SliceRunner(EagerRunner(graph, signature), signature))
    findings = _other_weights(str(loaded.checkpoint.file), loaded.checkpoint.weights_sha256, artifact)
    return tuple(Reference(runner=runner, exact=exact, findings=findings) for runner in runners)


def golden_reference(artifact: Artifact, golden: Golden) -> Reference:
    """Return what a golden recorded as a reference; neither torch nor the checkpoint is needed.

    Raises:
        ValidationError: It is of another contract.
    """
    from samdec_export.parity.recorded import RecordedRunner

    recorded = golden.record
    if differences := list(_differences(recorded.artifact, artifact.record)):
        raise ValidationError(
            f"{golden.path} was recorded for another contract than that of {artifact.path}: {'; '.join(differences)}.",
            f"Record one for this file: samdec-export record {artifact.path}.",
        )
    return Reference(
        runner=RecordedRunner(f"{recorded.reference} ({golden.path.name})", golden.answers()),
        known_floors={case.name: case.floors for case in recorded.cases},
        findings=_other_weights(golden.path.name, recorded.artifact.checkpoint.weights_sha256, artifact),
    )


def _definition(artifact: Artifact, loaded: LoadedModel) -> ExportGraph:
    from samdec_export.models.sam.graphs import build_graph

    record = artifact.record
    graph = build_graph(loaded.decoder, record.grid, replace(record.options, arrangement="reference"))
    signature = graph.signature if record.io == "fp32" else graph.signature.in_fp16()
    if signature != record.signature:
        raise GraphError(
            f"The record in {artifact.path} is not that of a {record.graph} graph of {record.model}.",
            "It is damaged, or of another version of samdec-export: export it again.",
        )
    return graph


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
