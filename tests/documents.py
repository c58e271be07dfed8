"""Documents of real runs of sam_tiny: what a gate run measures, mapped to what a report says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from samdec_export.api import validate
from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.artifact import Artifact
from samdec_export.core.feeds import sizes_of
from samdec_export.core.runner import Outputs
from samdec_export.export.cost import product_shares
from samdec_export.export.onnx_file import describe, open_artifact
from samdec_export.models.checkpoint import load_for
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.cases import select_cases
from samdec_export.parity.comparisons import Validated
from samdec_export.parity.validate import ValidationResult
from samdec_export.precision.audit import audit
from samdec_export.precision.ranges import TensorRange
from samdec_export.report import document as doc
from samdec_export.report.masks import pack_mask

BINS = np.linspace(-12, 0, 49)
"""Of log10 |error|, four a decade."""

Runs: TypeAlias = list[tuple[str, Outputs, Outputs]]
"""By case: what eager PyTorch and ONNX Runtime give."""

MACHINE = doc.Machine(platform="Linux-6.1 x86_64", cpu="a CPU of two cores", threads=1, gpu=None)


def break_weights(source: Path, target: Path, factor: float) -> None:
    """The same graph with its largest weight scaled."""
    model = onnx.load(source)
    tensor = max(model.graph.initializer, key=lambda item: math.prod(item.dims))
    weights = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float32), tensor.name))
    onnx.save(model, target)


def build(paths: Sequence[Path]) -> doc.Document:
    """The document of a run that validated the files `paths`."""
    judged = [judge(path) for path in paths]
    first = judged[0].artifact
    comparisons = tuple(part for item in judged for part in item.comparisons)
    verdicts = tuple(verdict for comparison in comparisons for verdict in _verdicts(comparison))
    broken = sum(not verdict.passed for verdict in verdicts)
    return doc.Document(
        passed=not broken,
        headline=f"{broken} of {len(verdicts)} thresholds are broken." if broken else "Every threshold holds.",
        created="2026-11-25T21:04:05+00:00",
        title="Gate of sam_tiny",
        model=first.record.model,
        graph=first.record.graph,
        command="samdec-export run gate.yaml",
        provenance=doc.Provenance(
            checkpoint=doc.Checkpoint(**asdict(first.record.checkpoint)),
            tools=dict(first.record.tools),
            machine=MACHINE,
            config={"model": "sam_tiny", "precisions": ["fp32", "fp16"], "sweep": "quick", "gpu": None},
        ),
        stages=_stages(),
        artifacts=(*(item.entry for item in judged), _engine(first)),
        comparisons=comparisons,
        verdicts=verdicts,
        worst_masks=tuple(sorted((pair for item in judged for pair in item.masks), key=lambda pair: pair.iou)),
        ranges=_ranges(first.path, judged[-1].artifact.record.kept),
        latency=_latency(),
        notes=("TensorRT was not run: there is no GPU here.",),
    )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a document says of one file."""

    artifact: Artifact
    entry: doc.ArtifactEntry
    comparisons: tuple[doc.Comparison, ...]
    masks: tuple[doc.MaskPair, ...]


@cache
def judge(path: Path) -> Judged:
    """Validate a file, each once."""
    artifact, validated = open_artifact(path), validate(path, sweep="quick")
    runs = _runs(artifact)
    names = [result.candidate for result in validated.results]
    return Judged(
        artifact=artifact,
        entry=_artifact(artifact, validated),
        comparisons=tuple(
            _comparison(artifact, result, _errors(runs) if index == 0 else None)
            for index, result in enumerate(validated.results)
        ),
        masks=tuple(_worst_masks(artifact, f"{names[0]} against {validated.results[0].reference}", runs)),
    )


def _stages() -> tuple[doc.Stage, ...]:
    return (
        doc.Stage(name="export", status="done", seconds=4.2),
        doc.Stage(name="convert", status="done", seconds=1.5),
        doc.Stage(name="validate", status="done", seconds=2.75),
        doc.Stage(name="engine", status="skipped", reason="no GPU here"),
    )


def _artifact(artifact: Artifact, validated: Validated) -> doc.ArtifactEntry:
    summary, record = describe(artifact.path), artifact.record
    return doc.ArtifactEntry(
        name=artifact.path.name,
        kind="onnx",
        precision=record.precision,
        file=artifact.path.name,
        bytes=artifact.path.stat().st_size,
        sha256=artifact.sha256,
        status="validated" if validated.result.passed else "failed",
        operators=dict(summary.ops),
        casts=summary.ops.get("Cast", 0),
        products=dict(product_shares(artifact.path, record.signature)),
        kept=dict(record.kept),
        details={"opset": str(record.opset), "arrangement": record.arrangement},
    )


def _engine(source: Artifact) -> doc.ArtifactEntry:
    return doc.ArtifactEntry(
        name="sam_tiny.decoder.fp32.sm86-sm89.engine",
        kind="engine",
        precision="fp32",
        file="sam_tiny.decoder.fp32.sm86-sm89.engine",
        bytes=5_214_321,
        sha256=source.sha256[::-1],
        status="not run",
        reason="built, not run: no GPU here",
        engine=doc.EngineDetails(
            flavour="rtx",
            version="1.7.1.116",
            targets=("sm86", "sm89"),
            histogram={"MATRIX_MULTIPLY": {"FLOAT": 41}, "NORMALIZATION": {"FLOAT": 9}},
        ),
    )


def _comparison(
    artifact: Artifact, result: ValidationResult, errors: dict[str, doc.Histogram] | None
) -> doc.Comparison:
    return doc.Comparison(
        artifact=artifact.path.name,
        candidate=result.candidate,
        reference=result.reference,
        precision=artifact.record.precision,
        passed=result.passed,
        limits=doc.Limits(**asdict(result.tolerance)),
        allowed={name: limit.relative for name, limit in result.limits.items()},
        floors={name: doc.Floor(**asdict(floor)) for name, floor in result.floors.items()},
        cases=tuple(
            doc.Case(
                case=case.case,
                sizes={name: int(size) for name, size in (part.split("=") for part in case.case.split(","))},
                passed=case.passed,
                outputs=tuple(_output(asdict(output)) for output in case.outputs),
                violations=tuple(doc.Violation(**asdict(violation)) for violation in case.violations),
            )
            for case in result.cases
        ),
        errors=errors,
        findings=result.findings,
    )


def _output(found: dict[str, Any]) -> doc.Output:
    masks = doc.Masks(**found["masks"]) if found["masks"] else None
    return doc.Output(
        name=found["name"], tensor=doc.Tensor(**found["tensor"]), masks=masks, best_mask=found["best_mask"]
    )


def _verdicts(comparison: doc.Comparison) -> list[doc.Verdict]:
    """The relative error of every output, and of masks the IoU and the share that flipped."""
    found = [(case.case, output) for case in comparison.cases for output in case.outputs]
    verdicts = []
    for name, allowed in comparison.allowed.items():
        errors = [(output.tensor.relative or 0.0, case) for case, output in found if output.name == name]
        verdicts.append(_verdict(comparison, "relative error", name, max(errors), allowed))
        masks = [(output.masks, case) for case, output in found if output.name == name and output.masks]
        if masks:
            iou = min((mask.iou_min, case) for mask, case in masks)
            verdicts.append(_verdict(comparison, "mask IoU", name, iou, comparison.limits.iou, bound="at least"))
            flips = max((mask.flipped, case) for mask, case in masks)
            verdicts.append(_verdict(comparison, "flipped pixels", name, flips, comparison.limits.flipped))
    return verdicts


def _verdict(
    comparison: doc.Comparison,
    threshold: str,
    output: str,
    worst: tuple[float, str],
    allowed: float,
    bound: Literal["at most", "at least"] = "at most",
) -> doc.Verdict:
    measured, case = worst
    return doc.Verdict(
        passed=bool(measured <= allowed if bound == "at most" else measured >= allowed),
        threshold=threshold,
        artifact=comparison.artifact,
        comparison=comparison.name,
        case=case,
        output=output,
        measured=measured,
        allowed=allowed,
        bound=bound,
        sentence=f"{comparison.artifact}: {threshold} of {output} is {measured:.3g} on {case}, {bound} {allowed:.5g} "
        f"is allowed ({comparison.name}).",
    )


def _runs(artifact: Artifact) -> Runs:
    """Every case: what eager PyTorch and ONNX Runtime give."""
    record = artifact.record
    graph = build_graph(load_for(artifact, None).decoder, record.grid, record.options)
    eager, engine = EagerRunner(graph, record.signature), OrtRunner(artifact.path)
    made = [(case.name, case.make()) for case in select_cases(record, sweep="quick")]
    assert all(sizes_of(record.signature, feeds) for _, feeds in made)
    return [(name, eager.run(feeds), engine.run(feeds)) for name, feeds in made]


def _errors(runs: Runs) -> dict[str, doc.Histogram]:
    histograms = {}
    for name in runs[0][1]:
        parts = [np.abs(right[name].astype(np.float64) - judged[name]).reshape(-1) for _, right, judged in runs]
        errors = np.concatenate(parts)
        counts, _ = np.histogram(np.log10(np.maximum(errors[errors > 0], 1e-12)), BINS)
        histograms[name] = doc.Histogram(
            edges=tuple(BINS.tolist()), counts=tuple(counts.tolist()), exact=int((errors == 0).sum())
        )
    return histograms


def _worst_masks(artifact: Artifact, comparison: str, runs: Runs) -> list[doc.MaskPair]:
    pairs = []
    for case, reference, candidate in runs:
        for prompt, mask in np.ndindex(reference["masks"].shape[:2]):
            right, judged = (outputs["masks"][prompt, mask] > 0 for outputs in (reference, candidate))
            union = int((right | judged).sum())
            pairs.append(
                doc.MaskPair(
                    artifact=artifact.path.name,
                    comparison=comparison,
                    case=case,
                    output="masks",
                    prompt=prompt,
                    mask=mask,
                    height=right.shape[0],
                    width=right.shape[1],
                    reference=pack_mask(right),
                    candidate=pack_mask(judged),
                    flipped=int((right != judged).sum()),
                    iou=int((right & judged).sum()) / union if union else 1.0,
                )
            )
    return sorted(pairs, key=lambda pair: pair.iou)[:2]


@cache
def _tensor_ranges(path: Path) -> tuple[TensorRange, ...]:
    return audit(path, "fp16", sweep="quick").ranges


def _ranges(path: Path, kept: Mapping[str, str]) -> tuple[doc.RangeRow, ...]:
    return tuple(
        doc.RangeRow(
            tensor=item.tensor,
            node=item.node,
            op=item.op,
            absmax=item.absmax,
            limit=65504.0,
            kept=item.node in kept,
            reason=kept.get(item.node, ""),
        )
        for item in _tensor_ranges(path)
    )


def _latency() -> doc.Latency:
    """Times as bench gives them; made up, since the tests measure nothing."""

    def timing(candidate: str, prompts: int, points: int, median: float) -> doc.Timing:
        return doc.Timing(
            candidate=candidate,
            images=1,
            prompts=prompts,
            points=points,
            median=median,
            low=median * 0.97,
            high=median * 1.06,
            per_prompt=median / prompts,
        )

    loads = [(1, 2, 1.0), (8, 2, 5.5), (64, 10, 47.0)]
    ort = [timing("sam_tiny.decoder.onnx", prompts, points, 4e-4 * scale) for prompts, points, scale in loads]
    eager = [timing("sam_tiny.decoder.onnx@eager", prompts, points, 9e-4 * scale) for prompts, points, scale in loads]
    refused = doc.Timing(
        candidate="a peer", images=1, prompts=64, points=10, unsupported="one prompt at a time, and ten points at most"
    )
    earlier = doc.Baseline(
        name="main of yesterday",
        measurements=tuple(
            timing(item.candidate, item.prompts, item.points, 1.02 * (item.median or 0)) for item in ort
        ),
    )
    return doc.Latency(device="2 threads of a CPU", threads=2, measurements=(*ort, *eager, refused), baseline=earlier)
