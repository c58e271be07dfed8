"""The report's document, from what the stages of a run left in the ledger."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from samdec_export.backends.tensorrt.index import obstacle
from samdec_export.core.dtypes import Precision
from samdec_export.report.document import Document
from samdec_export.report.parts import (
    ArtifactEntry,
    Baseline,
    EngineDetails,
    Latency,
    Machine,
    Provenance,
    Stage,
    Verdict,
)
from samdec_export.run.job import Job
from samdec_export.run.ledger import Entry
from samdec_export.run.results import BenchResult, EngineResult, FileResult, ParityResult
from samdec_export.run.verdicts import judge_comparison, judge_latency, judge_origin, judge_weights

__all__ = ["Results", "build_document", "engine_obstacles"]

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The entries of a run that is done: all of them in order, and by what they are.

    Engines stand with the precision of their file; `baseline` is what times are judged against; `notes` say what was
    left out.
    """

    stages: tuple[Entry[Any], ...]
    files: Mapping[Precision, Entry[FileResult]]
    engines: tuple[tuple[Precision, Entry[EngineResult]], ...]
    parity: tuple[Entry[ParityResult], ...]
    bench: Entry[BenchResult] | None
    baseline: Baseline | None
    notes: tuple[str, ...]


def build_document(job: Job, results: Results, command: str) -> Document:
    """Return everything that a run has to say, judged; `command` runs it again."""
    fp32, found = results.files["fp32"].result, [entry.result for entry in results.parity]
    document = Document(
        passed=False,
        headline="",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        title=f"{fp32.model}, {fp32.graph}",
        model=fp32.model,
        graph=fp32.graph,
        command=command,
        provenance=_provenance(job, results),
        stages=tuple(
            Stage(
                name=entry.stage,
                status="skipped" if entry.reused else "done",
                seconds=entry.seconds,
                reason=entry.reason,
            )
            for entry in results.stages
        ),
        artifacts=(*(entry.result.entry for entry in results.files.values()), *_engines(job, results)),
        comparisons=tuple(comparison for result in found for comparison in result.comparisons),
        verdicts=(),
        worst_masks=tuple(sorted((mask for result in found for mask in result.masks), key=lambda mask: mask.iou)),
        ranges=next((results.files[name].result.ranges for name in ("fp16", "bf16") if name in results.files), ()),
        latency=_latency(job, results),
        notes=(*(note for result in found for note in result.notes), *results.notes),
    )
    return _judged(document, tuple(_verdicts(job, results, document)))


def engine_obstacles(job: Job, results: Results) -> dict[str, str]:
    """Why each engine was not run, by its file's name; empty where it was."""
    compared = {entry.result.file for entry in results.parity if entry.result.comparisons}
    met = {entry.result.file: entry.result.obstacle for entry in results.parity if entry.result.obstacle}
    return {
        name: "" if name in compared else obstacle(entry.result.record, job.machine) or met.get(name, "not compared")
        for _, entry in results.engines
        for name in (entry.result.file,)
    }


def _provenance(job: Job, results: Results) -> Provenance:
    tools = {name: version for entry in results.stages for name, version in entry.inputs["packages"].items()}
    gpu = job.machine.gpu
    return Provenance(
        checkpoint=results.files["fp32"].result.checkpoint,
        tools={**tools, "python": platform.python_version()},
        machine=Machine(
            platform=platform.platform(), cpu=_cpu(), threads=os.cpu_count() or 1, gpu=gpu.name if gpu else None
        ),
        config=job.config.model_dump(mode="json"),
    )


def _cpu() -> str:
    """Return the processor's name as Linux has it, or as Python knows it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _engines(job: Job, results: Results) -> Iterator[ArtifactEntry]:
    obstacles = engine_obstacles(job, results)
    for precision, entry in results.engines:
        engine, record, reason = entry.result, entry.result.record, obstacles[entry.result.file]
        yield ArtifactEntry(
            name=engine.file,
            kind="engine",
            precision=precision,
            file=next(name for name in entry.files if name.endswith(engine.file)),
            bytes=engine.bytes,
            sha256=engine.sha256,
            status="not run" if reason else "validated",
            reason=reason,
            engine=EngineDetails(
                flavour=record.engine,
                version=record.version,
                targets=tuple(record.targets),
                histogram=record.histogram,
                warnings=tuple(record.warnings),
            ),
        )


def _latency(job: Job, results: Results) -> Latency | None:
    if results.bench is None:
        return None
    found = results.bench.result
    return Latency(
        device=", ".join([_cpu(), *([job.machine.gpu.name] if job.machine.gpu else [])]),
        threads=found.threads,
        measurements=found.timings,
        baseline=results.baseline,
    )


def _verdicts(job: Job, results: Results, document: Document) -> Iterator[Verdict]:
    yield from _origins(results)
    for name in dict.fromkeys(comparison.artifact for comparison in document.comparisons):
        yield judge_weights(name, (found for found in document.comparisons if found.artifact == name))
    for comparison in document.comparisons:
        yield from judge_comparison(comparison)
    if results.baseline and job.config.gate.latency and document.latency:
        yield from judge_latency(document.latency.measurements, results.baseline, job.config.gate.latency.ratio)
    if job.config.gate.require_engines:
        yield from _required_engines(document.artifacts)


def _origins(results: Results) -> Iterator[Verdict]:
    """Yield whether every file was made from this run's: conversions from its fp32 file, engines from those."""
    fp32 = results.files["fp32"].result
    for precision, entry in results.files.items():
        if precision != "fp32":
            yield judge_origin(entry.result.entry.name, "fp32", entry.result.parent, fp32.entry.sha256)
    for precision, engine in results.engines:
        record, onnx = engine.result.record, results.files[precision].result.entry
        found = record.source.checkpoint.weights_sha256
        yield judge_origin(engine.result.file, "weights", found, fp32.checkpoint.weights_sha256)
        yield judge_origin(engine.result.file, "onnx", record.onnx_sha256, onnx.sha256)


def _required_engines(artifacts: Sequence[ArtifactEntry]) -> Iterator[Verdict]:
    engines = [artifact for artifact in artifacts if artifact.kind == "engine"]
    for engine in engines:
        passed = engine.status == "validated"
        state = "built and compared" if passed else f"built, {engine.status}: {engine.reason}"
        sentence = f"{engine.name}: {state}; gate.require_engines asks for engines that were run."
        yield Verdict(passed=passed, threshold="gate.require_engines", artifact=engine.name, sentence=sentence)
    if not engines:
        sentence = "No engine was built, and gate.require_engines asks for engines that were run."
        yield Verdict(passed=False, threshold="gate.require_engines", artifact="", sentence=sentence)


def _judged(document: Document, verdicts: tuple[Verdict, ...]) -> Document:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    broken = {verdict.artifact for verdict in failed}
    artifacts = tuple(
        replace(artifact, status="failed") if artifact.name in broken else artifact for artifact in document.artifacts
    )
    names = ", ".join(artifact.name for artifact in document.artifacts if artifact.kind == "onnx")
    counted = f"{len(verdicts) - len(failed)} of {len(verdicts)} thresholds hold"
    idle = sum(artifact.status == "not run" for artifact in artifacts)
    unproved = f"; {idle} engine{'s were' if idle > 1 else ' was'} built and not run" if idle else ""
    headline = (
        f"FAILED: {failed[0].sentence} {counted}{unproved}."
        if failed
        else f"PASSED: {names} equal eager PyTorch within the gate; {counted}{unproved}."
    )
    return replace(document, passed=not failed, headline=headline, artifacts=artifacts, verdicts=verdicts)
