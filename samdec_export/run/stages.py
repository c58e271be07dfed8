"""The stages of a run: what each depends on, and which flow does it.

A stage's inputs are the files that it reads, by hash, and the keys of the config that it heeds: touching another key
leaves it alone. Nothing heavy is imported before a stage runs.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.core.choices import options_of
from samdec_export.core.dtypes import FORMATS, LowPrecision, Precision
from samdec_export.core.errors import DependencyError
from samdec_export.core.files import staging, write_text
from samdec_export.core.packages import (
    BENCH,
    CONVERT,
    ENGINE_RUNNERS,
    ENGINES,
    EXPORT,
    PARITY,
    SIMPLIFY,
    EngineName,
)
from samdec_export.report.parts import RangeRow
from samdec_export.run.job import Job, hash_of
from samdec_export.run.ledger import Entry, Stage, StageOutput
from samdec_export.run.results import BenchResult, EngineResult, FileResult, ParityResult, StageResult, timing_of

if TYPE_CHECKING:
    from samdec_export.backends.candidates import Candidate

__all__ = [
    "BENCH_FILE",
    "bench_stage",
    "convert_stage",
    "engine_parity_stage",
    "engine_stage",
    "parity_stage",
    "simplify_stage",
    "trace_stage",
]

TRACED = "traced.onnx"
BENCH_FILE = "bench.json"


def trace_stage(job: Job, folder: Path) -> Stage[StageResult]:
    """Return the stage from the checkpoint to ONNX as torch's exporter writes it; the file stays in `folder`."""
    config = job.config

    def make() -> StageOutput[StageResult]:
        from samdec_export.export.to_onnx import trace_graph
        from samdec_export.models.sam.graphs import graph_to_export

        graph, record = graph_to_export(job.loaded, config.graph_options)
        with staging(folder) as scratch:
            trace_graph(graph, record, scratch / TRACED)
            os.replace(scratch / TRACED, folder / TRACED)
        return StageOutput(files=(folder / TRACED,), result=StageResult())

    own = {"checkpoint": job.digest, "model": config.model, **asdict(config.graph_options)}
    return Stage(name="export", inputs=job.inputs(EXPORT, own), result=StageResult, make=make)


def simplify_stage(job: Job, traced: Entry[StageResult]) -> Stage[FileResult]:
    """Return the stage from that to the fp32 file that is delivered."""

    def make() -> StageOutput[FileResult]:
        from samdec_export.export.to_onnx import simplify_graph

        out = job.config.out
        with staging(out) as scratch:
            done = simplify_graph(traced.file(TRACED), scratch, out)
        result = FileResult.of(done.artifact, done.after.ops)
        return StageOutput(files=(done.artifact.path, done.artifact.sidecar), result=result)

    inputs = job.inputs(SIMPLIFY, {"traced": traced.hash})
    return Stage(name="simplify", inputs=inputs, result=FileResult, make=make)


def convert_stage(job: Job, exported: Entry[FileResult], precision: LowPrecision) -> Stage[FileResult]:
    """Return the stage from the fp32 file to a typed one."""
    asked, feeds = job.config.convert.options(precision), job.config.parity.feeds

    def make() -> StageOutput[FileResult]:
        from samdec_export.export.onnx_file import describe
        from samdec_export.parity.cases import select_cases
        from samdec_export.precision.convert import convert_file, open_fp32

        source = open_fp32(exported.file(".onnx"))
        cases = job.drawn.keep(select_cases(source.record, feeds=feeds, sweep="quick"))
        done = convert_file(source, asked, cases, job.config.out)
        kept, limit = done.artifact.record.kept, FORMATS[precision].largest
        rows = tuple(
            RangeRow(
                tensor=item.tensor,
                node=item.node,
                op=item.op,
                absmax=None if item.nonfinite else item.absmax,
                limit=limit,
                kept=item.node in kept,
                reason=kept.get(item.node, ""),
            )
            for item in done.ranges
            if not item.moves
        )
        result = FileResult.of(done.artifact, describe(done.artifact.path).ops, done.shares, rows)
        return StageOutput(files=(done.artifact.path, done.artifact.sidecar), result=result)

    own = {"exported": exported.hash, "convert": asdict(asked), "parity.feeds": hash_of(feeds, "parity.feeds")}
    return Stage(name=f"convert-{precision}", inputs=job.inputs(CONVERT, own), result=FileResult, make=make)


def engine_stage(
    job: Job, typed: Entry[FileResult], engine: EngineName, precision: Precision, folder: Path
) -> Stage[EngineResult]:
    """Return the stage from a typed file to an engine in `folder`."""
    asked, machine = job.config.engines.options(engine), job.machine

    def make() -> StageOutput[EngineResult]:
        from samdec_export.backends.tensorrt.engine import build, plan_build
        from samdec_export.export.onnx_file import open_artifact

        source = open_artifact(typed.file(".onnx"))
        done = build(source, plan_build(source, asked, precision), folder).engine
        return StageOutput(files=(done.path, done.sidecar), result=EngineResult.of(done))

    own = {
        "onnx": typed.hash,
        "engines": asdict(asked),
        "gpu": machine.gpu and machine.gpu.target,
        "version": machine.versions.get(engine),  # of a copy that no package declares
    }
    inputs = job.inputs(ENGINES[engine].packages, own)
    return Stage(name=f"engine-{engine}-{precision}", inputs=inputs, result=EngineResult, make=make)


def parity_stage(
    job: Job, exported: Entry[FileResult], typed: Entry[FileResult], precision: Precision
) -> Stage[ParityResult]:
    """Return the stage that compares an ONNX file with eager PyTorch, within the limits of the gate."""

    def make() -> StageOutput[ParityResult]:
        from samdec_export.backends.candidates import open_candidate

        return StageOutput(result=_compared(job, exported, open_candidate(typed.file(".onnx")), precision))

    inputs = job.inputs(PARITY, _parity_inputs(job, typed, precision))
    return Stage(name=f"parity-{precision}", inputs=inputs, result=ParityResult, make=make)


def engine_parity_stage(
    job: Job, exported: Entry[FileResult], built: Entry[EngineResult], precision: Precision
) -> Stage[ParityResult]:
    """Return the same for an engine, on the GPU here."""
    engine = built.result.record.engine
    rounding: Precision = "fp16" if job.config.engines.tf32 and precision == "fp32" else precision

    def make() -> StageOutput[ParityResult]:
        from samdec_export.backends.candidates import open_candidate

        try:
            return StageOutput(result=_compared(job, exported, open_candidate(built.file(".engine")), rounding))
        except DependencyError as error:  # such as a torch without CUDA: reported as not run, not as compared
            return StageOutput(result=ParityResult(file=built.result.file, obstacle=str(error)))

    own = _parity_inputs(job, built, rounding) | {"gpu": job.machine.gpu and job.machine.gpu.name}
    inputs = job.inputs((*PARITY, *ENGINE_RUNNERS, *ENGINES[engine].packages), own)
    return Stage(name=f"parity-{engine}-{precision}", inputs=inputs, result=ParityResult, make=make)


def _parity_inputs(job: Job, judged: Entry[Any], precision: Precision) -> dict[str, Any]:
    asked = job.config.parity
    return {
        "file": judged.hash,
        "checkpoint": job.digest,
        f"gate.{precision}": asdict(job.config.gate.tolerance(precision)),
        "parity": asked.model_dump(mode="json") | {"feeds": hash_of(asked.feeds, "parity.feeds")},
    }


def _compared(job: Job, exported: Entry[FileResult], candidate: Candidate, precision: Precision) -> ParityResult:
    """Compare, and return what is found; recorded inputs are those of the fp32 file."""
    from samdec_export.core.feeds import typed_feeds
    from samdec_export.export.onnx_file import open_artifact
    from samdec_export.parity.cases import select_cases
    from samdec_export.parity.comparisons import Replay, check

    asked, artifact = job.config.parity, candidate.artifact
    source = open_artifact(exported.file(".onnx")).record
    within = candidate.signatures if candidate.engine else ()
    inputs = select_cases(source, feeds=asked.feeds, seed=asked.seed, sweep=asked.sweep, within=within)
    cases = [typed_feeds(case, artifact.record.signature) for case in job.drawn.keep(inputs)]
    replay = options_of(Replay, asked, file=artifact.path, checkpoint=job.config.checkpoint)
    tolerance = job.config.gate.tolerance(precision)
    done = check(artifact, job.loaded, cases, replay, candidate, tolerance=tolerance, evidence=True)
    return ParityResult.of(done, artifact.path.name, precision)


def bench_stage(
    job: Job, files: Sequence[Entry[FileResult]], engines: Sequence[Entry[EngineResult]]
) -> Stage[BenchResult]:
    """Return the stage that times files in ONNX Runtime and engines on the GPU: a later run's baseline."""
    asked = job.config.bench

    def make() -> StageOutput[BenchResult]:
        from samdec_export.bench.measure import Workload
        from samdec_export.bench.side_by_side import BenchEntry, bench_entries

        onnx, plans = (
            [entry.file(ending) for entry in kind] for ending, kind in ((".onnx", files), (".engine", engines))
        )
        done = bench_entries(
            [BenchEntry(path=path, name=path.name) for path in onnx]
            + [BenchEntry(path=path, name=path.name, runner="trt") for path in plans],
            Workload.grid(asked.images, asked.prompts, asked.points),
            threads=asked.threads,
            repeats=asked.repeats,
        )
        target = job.config.out / BENCH_FILE
        found = done.to_json()
        write_text(target, json.dumps(found, indent=2) + "\n")
        timings = tuple(timing_of(item) for item in found["measurements"])
        return StageOutput(files=(target,), result=BenchResult(threads=done.threads, timings=timings))

    own = {
        "files": [*(entry.hash for entry in files), *(entry.hash for entry in engines)],
        "bench": asked.model_dump(mode="json"),
        "machine": [platform.node(), platform.machine(), os.cpu_count(), job.machine.gpu and job.machine.gpu.name],
    }
    flavours: set[EngineName] = {entry.result.record.engine for entry in engines}
    runners = ENGINE_RUNNERS if engines else ()
    packages = (*BENCH, *runners, *(name for engine in sorted(flavours) for name in ENGINES[engine].packages))
    return Stage(name="bench", inputs=job.inputs(packages, own), result=BenchResult, make=make)
