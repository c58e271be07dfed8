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

from samdec_export.backends.tensorrt.options import EngineName
from samdec_export.core.artifact import Artifact
from samdec_export.core.choices import options_of
from samdec_export.core.dtypes import FORMATS, LowPrecision, Precision
from samdec_export.core.errors import DependencyError
from samdec_export.core.files import staging, write_text
from samdec_export.run.job import Job, hash_of
from samdec_export.run.ledger import Entry, Made, Stage

if TYPE_CHECKING:
    from samdec_export.backends.candidates import Subject

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
ENGINE_TOOLS: dict[EngineName, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
PARITY_TOOLS = ("torch", "onnxruntime", "onnxruntime-gpu", "numpy", "ml_dtypes")


def trace_stage(job: Job, folder: Path) -> Stage:
    """From the checkpoint to ONNX as torch's exporter writes it; the file stays in `folder`."""
    config = job.config

    def make() -> Made:
        from samdec_export.export.to_onnx import trace_graph
        from samdec_export.models.contracts import graph_to_export

        graph, record = graph_to_export(job.weights.loaded, config.graph_options, config.opset)
        with staging(folder) as scratch:
            trace_graph(graph, record, scratch / TRACED)
            os.replace(scratch / TRACED, folder / TRACED)
        return Made(files=(folder / TRACED,))

    keys = ("model", "graph", "masks", "mask_input", "dynamic_grid", "arrangement", "ranges", "opset")
    asked = {key: value for key, value in config.model_dump(mode="json").items() if key in keys}
    tools = ("torch", "onnx", "onnxscript")
    return Stage(name="export", inputs=job.inputs(*tools, checkpoint=job.digest, **asked), make=make)


def simplify_stage(job: Job, traced: Entry) -> Stage:
    """From that to the fp32 file that is delivered."""

    def make() -> Made:
        from samdec_export.export.to_onnx import simplify_graph

        out = job.config.out
        with staging(out) as scratch:
            done = simplify_graph(traced.file(TRACED), scratch, out)
        facts = {"operators": done.after.ops, "traced": done.before.nodes, "casts": done.after.ops.get("Cast", 0)}
        return _delivered(done.artifact, facts)

    return Stage(name="simplify", inputs=job.inputs("onnx", "onnxscript", "onnxslim", traced=traced.hash), make=make)


def convert_stage(job: Job, exported: Entry, precision: LowPrecision) -> Stage:
    """From the fp32 file to a typed one."""
    asked, feeds = job.config.convert.options(precision), job.config.parity.feeds

    def make() -> Made:
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
    tools = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "ml_dtypes")
    return Stage(name=f"convert-{precision}", inputs=job.inputs(*tools, **own), make=make)


def engine_stage(job: Job, typed: Entry, engine: EngineName, precision: Precision, folder: Path) -> Stage:
    """From a typed file to an engine in `folder`."""
    asked, machine = job.config.engines.options(engine), job.machine

    def make() -> Made:
        from samdec_export.backends.tensorrt.engine import build, plan_build
        from samdec_export.export.onnx_file import open_artifact

        source = open_artifact(typed.file(".onnx"))
        done = build(source, plan_build(source, asked, precision), folder).engine
        facts = {"engine": done.to_json(), "bytes": done.path.stat().st_size}
        return Made(files=(done.path, done.sidecar), result=facts)

    settings = {**asdict(asked), "timing_cache": asked.timing_cache and str(asked.timing_cache)}
    own = {"onnx": typed.hash, "engines": settings, "gpu": machine.gpu and machine.gpu.target}
    return Stage(name=f"engine-{engine}-{precision}", inputs=job.inputs(*ENGINE_TOOLS[engine], **own), make=make)


def parity_stage(job: Job, exported: Entry, typed: Entry, precision: Precision) -> Stage:
    """The comparison of an ONNX file with eager PyTorch, within the limits of the gate."""

    def make() -> Made:
        from samdec_export.backends.candidates import open_subject

        return Made(result=_compared(job, exported, open_subject(typed.file(".onnx")), precision))

    inputs = _parity_inputs(job, typed, precision)
    return Stage(name=f"parity-{precision}", inputs=job.inputs(*PARITY_TOOLS, **inputs), make=make)


def engine_parity_stage(job: Job, exported: Entry, built: Entry, precision: Precision) -> Stage:
    """The same for an engine, on the GPU here."""
    engine: EngineName = built.result["engine"]["engine"]
    rounding: Precision = "fp16" if job.config.engines.tf32 and precision == "fp32" else precision

    def make() -> Made:
        from samdec_export.backends.candidates import open_subject

        name = built.result["engine"]["file"]
        try:
            return Made(result=_compared(job, exported, open_subject(built.file(".engine")), rounding))
        except DependencyError as error:  # such as a torch without CUDA: reported as not run, not as compared
            return Made(result={"comparisons": [], "masks": [], "notes": [], "obstacle": {name: str(error)}})

    inputs = _parity_inputs(job, built, rounding) | {"gpu": job.machine.gpu and job.machine.gpu.name}
    tools = (*PARITY_TOOLS, *ENGINE_TOOLS[engine], "polygraphy")
    return Stage(name=f"parity-{engine}-{precision}", inputs=job.inputs(*tools, **inputs), make=make)


def _parity_inputs(job: Job, judged: Entry, precision: Precision) -> dict[str, Any]:
    asked, tolerance = job.config.parity, job.config.gate.tolerance(precision)
    return {
        "file": judged.hash,
        "checkpoint": job.digest,
        f"gate.{precision}": {key: value for key, value in asdict(tolerance).items() if key != "reason"},
        "parity": {"sweep": asked.sweep, "seed": asked.seed, "feeds": hash_of(asked.feeds, "parity.feeds")},
    }


def _compared(job: Job, exported: Entry, subject: Subject, precision: Precision) -> dict[str, Any]:
    """What a comparison finds; recorded inputs are those of the fp32 file."""
    from samdec_export.core.feeds import typed_feeds
    from samdec_export.export.onnx_file import open_artifact
    from samdec_export.parity.cases import select_cases
    from samdec_export.parity.comparisons import check
    from samdec_export.parity.replay import Replay
    from samdec_export.run.evidence import found_by

    asked, artifact = job.config.parity, subject.artifact
    source = open_artifact(exported.file(".onnx")).record
    within = subject.signatures if subject.engine else ()
    inputs = select_cases(source, feeds=asked.feeds, seed=asked.seed, sweep=asked.sweep, within=within)
    cases = [typed_feeds(case, artifact.record.signature) for case in inputs]
    replay = options_of(Replay, asked, file=artifact.path, checkpoint=job.config.checkpoint)
    tolerance = job.config.gate.tolerance(precision)
    done = check(artifact, job.weights.loaded, cases, replay, subject, tolerance=tolerance, evidence=True)
    return found_by(done, artifact.path.name, precision)


def bench_stage(job: Job, files: Sequence[Entry], engines: Sequence[Entry]) -> Stage:
    """The time that files take in ONNX Runtime, and engines on the GPU; its file can be a later run's baseline."""
    asked = job.config.bench

    def make() -> Made:
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
        return Made(files=(target,), result=done.to_json())

    own = {
        "files": [entry.hash for entry in (*files, *engines)],
        "bench": asked.model_dump(mode="json"),
        "machine": [platform.node(), platform.machine(), os.cpu_count(), job.machine.gpu and job.machine.gpu.name],
    }
    return Stage(name="bench", inputs=job.inputs("onnxruntime", "onnxruntime-gpu", "numpy", **own), make=make)


def _delivered(artifact: Artifact, facts: dict[str, Any]) -> Made:
    """An ONNX file, its sidecar, and what a report says of it."""
    result = {"artifact": artifact.to_json(), "bytes": artifact.path.stat().st_size, **facts}
    return Made(files=(artifact.path, artifact.sidecar), result=result)
