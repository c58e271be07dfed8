"""The stages of a run: what each depends on, and which flow does it.

A stage's inputs are the files that it reads, by hash, every field of the options that it takes, and the packages that
do its work: touching a key of the config that is none of its options leaves it alone. Nothing heavy is imported before
a stage runs.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.core.artifact import Artifact
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
from samdec_export.run.job import Job, hash_of
from samdec_export.run.ledger import Entry, Stage, StageOutput

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


def trace_stage(job: Job, folder: Path) -> Stage:
    """Return the stage from the checkpoint to ONNX as torch's exporter writes it; the file stays in `folder`."""
    config = job.config

    def make() -> StageOutput:
        from samdec_export.export.to_onnx import trace_graph
        from samdec_export.models.record import graph_to_export

        graph, record = graph_to_export(job.weights.loaded, config.graph_options, config.opset)
        with staging(folder) as scratch:
            trace_graph(graph, record, scratch / TRACED)
            os.replace(scratch / TRACED, folder / TRACED)
        return StageOutput(files=(folder / TRACED,))

    own = {"checkpoint": job.digest, "model": config.model, "opset": config.opset, **asdict(config.graph_options)}
    return Stage(name="export", inputs=job.inputs(EXPORT, own), make=make)


def simplify_stage(job: Job, traced: Entry) -> Stage:
    """Return the stage from that to the fp32 file that is delivered."""

    def make() -> StageOutput:
        from samdec_export.export.to_onnx import simplify_graph

        out = job.config.out
        with staging(out) as scratch:
            done = simplify_graph(traced.file(TRACED), scratch, out)
        facts = {"operators": done.after.ops, "traced": done.before.nodes, "casts": done.after.ops.get("Cast", 0)}
        return _delivered(done.artifact, facts)

    return Stage(name="simplify", inputs=job.inputs(SIMPLIFY, {"traced": traced.hash}), make=make)


def convert_stage(job: Job, exported: Entry, precision: LowPrecision) -> Stage:
    """Return the stage from the fp32 file to a typed one."""
    asked, feeds = job.config.convert.options(precision), job.config.parity.feeds

    def make() -> StageOutput:
        from samdec_export.export.onnx_file import describe
        from samdec_export.parity.cases import select_cases
        from samdec_export.precision.convert import convert_file, open_fp32

        source = open_fp32(exported.file(".onnx"))
        done = convert_file(source, asked, select_cases(source.record, feeds=feeds, sweep="quick"), job.config.out)
        kept, limit = done.artifact.record.kept, FORMATS[precision].largest
        rows = [
            {
                "tensor": item.tensor,
                "node": item.node,
                "op": item.op,
                "absmax": None if item.nonfinite else item.absmax,
                "limit": limit,
                "kept": item.node in kept,
                "reason": kept.get(item.node, ""),
            }
            for item in done.ranges
            if not item.moves
        ]
        facts = {"casts": done.casts, "products": dict(done.shares), "operators": describe(done.artifact.path).ops}
        return _delivered(done.artifact, {**facts, "ranges": rows})

    own = {"exported": exported.hash, "convert": asdict(asked), "parity.feeds": hash_of(feeds, "parity.feeds")}
    return Stage(name=f"convert-{precision}", inputs=job.inputs(CONVERT, own), make=make)


def engine_stage(job: Job, typed: Entry, engine: EngineName, precision: Precision, folder: Path) -> Stage:
    """Return the stage from a typed file to an engine in `folder`."""
    asked, machine = job.config.engines.options(engine), job.machine

    def make() -> StageOutput:
        from samdec_export.backends.tensorrt.engine import build, plan_build
        from samdec_export.export.onnx_file import open_artifact

        source = open_artifact(typed.file(".onnx"))
        done = build(source, plan_build(source, asked, precision), folder).engine
        facts = {"engine": done.to_json(), "bytes": done.path.stat().st_size}
        return StageOutput(files=(done.path, done.sidecar), result=facts)

    own = {
        "onnx": typed.hash,
        "engines": asdict(asked),
        "gpu": machine.gpu and machine.gpu.target,
        "version": machine.versions.get(engine),  # of a copy that no package declares
    }
    return Stage(name=f"engine-{engine}-{precision}", inputs=job.inputs(ENGINES[engine].packages, own), make=make)


def parity_stage(job: Job, exported: Entry, typed: Entry, precision: Precision) -> Stage:
    """Return the stage that compares an ONNX file with eager PyTorch, within the limits of the gate."""

    def make() -> StageOutput:
        from samdec_export.backends.candidates import open_candidate

        return StageOutput(result=_compared(job, exported, open_candidate(typed.file(".onnx")), precision))

    return Stage(
        name=f"parity-{precision}", inputs=job.inputs(PARITY, _parity_inputs(job, typed, precision)), make=make
    )


def engine_parity_stage(job: Job, exported: Entry, built: Entry, precision: Precision) -> Stage:
    """Return the same for an engine, on the GPU here."""
    engine: EngineName = built.result["engine"]["engine"]
    rounding: Precision = "fp16" if job.config.engines.tf32 and precision == "fp32" else precision

    def make() -> StageOutput:
        from samdec_export.backends.candidates import open_candidate

        name = built.result["engine"]["file"]
        try:
            return StageOutput(result=_compared(job, exported, open_candidate(built.file(".engine")), rounding))
        except DependencyError as error:  # such as a torch without CUDA: reported as not run, not as compared
            return StageOutput(result={"comparisons": [], "masks": [], "notes": [], "obstacle": {name: str(error)}})

    own = _parity_inputs(job, built, rounding) | {"gpu": job.machine.gpu and job.machine.gpu.name}
    packages = (*PARITY, *ENGINE_RUNNERS, *ENGINES[engine].packages)
    return Stage(name=f"parity-{engine}-{precision}", inputs=job.inputs(packages, own), make=make)


def _parity_inputs(job: Job, judged: Entry, precision: Precision) -> dict[str, Any]:
    asked = job.config.parity
    return {
        "file": judged.hash,
        "checkpoint": job.digest,
        f"gate.{precision}": asdict(job.config.gate.tolerance(precision)),
        "parity": asked.model_dump(mode="json") | {"feeds": hash_of(asked.feeds, "parity.feeds")},
    }


def _compared(job: Job, exported: Entry, candidate: Candidate, precision: Precision) -> dict[str, Any]:
    """Compare, and return what is found; recorded inputs are those of the fp32 file."""
    from samdec_export.core.feeds import typed_feeds
    from samdec_export.export.onnx_file import open_artifact
    from samdec_export.parity.cases import select_cases
    from samdec_export.parity.comparisons import check, replay_words
    from samdec_export.run.evidence import found_by

    asked, artifact = job.config.parity, candidate.artifact
    source = open_artifact(exported.file(".onnx")).record
    within = candidate.signatures if candidate.engine else ()
    inputs = select_cases(source, feeds=asked.feeds, seed=asked.seed, sweep=asked.sweep, within=within)
    cases = [typed_feeds(case, artifact.record.signature) for case in inputs]
    replay = replay_words(artifact.path, job.config.checkpoint, asked.seed, asked.feeds, asked.sweep)
    tolerance = job.config.gate.tolerance(precision)
    done = check(artifact, job.weights.loaded, cases, replay, candidate, tolerance=tolerance, evidence=True)
    return found_by(done, artifact.path.name, precision)


def bench_stage(job: Job, files: Sequence[Entry], engines: Sequence[Entry]) -> Stage:
    """Return the stage that times files in ONNX Runtime and engines on the GPU: a later run's baseline."""
    asked = job.config.bench

    def make() -> StageOutput:
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
        write_text(target, json.dumps(done.to_json(), indent=2) + "\n")
        return StageOutput(files=(target,), result=done.to_json())

    own = {
        "files": [entry.hash for entry in (*files, *engines)],
        "bench": asked.model_dump(mode="json"),
        "machine": [platform.node(), platform.machine(), os.cpu_count(), job.machine.gpu and job.machine.gpu.name],
    }
    flavours: set[EngineName] = {entry.result["engine"]["engine"] for entry in engines}
    runners = ENGINE_RUNNERS if engines else ()
    packages = (*BENCH, *runners, *(name for engine in sorted(flavours) for name in ENGINES[engine].packages))
    return Stage(name="bench", inputs=job.inputs(packages, own), make=make)


def _delivered(artifact: Artifact, facts: dict[str, Any]) -> StageOutput:
    """Return an ONNX file, its sidecar, and what a report says of it."""
    result = {"artifact": artifact.to_json(), "bytes": artifact.path.stat().st_size, **facts}
    return StageOutput(files=(artifact.path, artifact.sidecar), result=result)
