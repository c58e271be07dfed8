"""Documents of real comparisons of sam_tiny, made by the functions that a run makes its own by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import numpy_helper

from samdec_export.backends.candidates import open_candidate
from samdec_export.backends.machine import Machine
from samdec_export.backends.tensorrt.engine_file import EngineRecord
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import Precision
from samdec_export.export.cost import product_shares
from samdec_export.export.onnx_file import describe, open_artifact
from samdec_export.models.checkpoint import load_for
from samdec_export.parity.cases import select_cases
from samdec_export.parity.comparisons import Replay, check
from samdec_export.precision.audit import audit
from samdec_export.report.document import Document
from samdec_export.report.parts import Baseline, RangeRow, Timing
from samdec_export.run.config import RunConfig
from samdec_export.run.document import Results, build_document
from samdec_export.run.job import Job
from samdec_export.run.ledger import Entry
from samdec_export.run.results import BenchResult, EngineResult, FileResult, ParityResult, StageResult

R = TypeVar("R", bound=StageResult)

COMMAND = "samdec-export run gate.yaml"
ENGINE = "sam_tiny.decoder.fp32.sm86-sm89.engine"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def break_weights(source: Path, target: Path, factor: float) -> None:
    """The same graph with its largest weight scaled."""
    model = onnx.load(source)
    tensor = max(model.graph.initializer, key=lambda item: math.prod(item.dims))
    weights = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float32), tensor.name))
    onnx.save(model, target)


def build(fp32: Path, fp16: Path) -> Document:
    """The document of a run on a machine without GPU that delivered these files, one as if made from the other."""
    job = Job(
        config=RunConfig(model="sam_tiny"),
        digest=None,
        machine=Machine(gpu=None, versions={}),
    )
    source = open_artifact(fp32)
    converted = replace(file_result(fp16, ranges_of(fp32)), parent=source.sha256)
    files = {
        "fp32": entry_of("simplify", file_result(fp32), 4.2),
        "fp16": entry_of("convert-fp16", converted, 1.5),
    }
    engine = entry_of("engine-rtx-fp32", engine_result(source), reused=True, files={ENGINE: ""})
    parity = tuple(
        entry_of(f"parity-{kind}", compared(path, kind), 2.75)
        for kind, path in zip(PRECISIONS, (fp32, fp16), strict=True)
    )
    bench = entry_of("bench", BenchResult(threads=2, timings=timings()))
    results = Results(
        stages=(entry_of("export", StageResult(), 1.0), *files.values(), engine, *parity, bench),
        files=files,  # type: ignore[arg-type]  # keys are precisions
        engines=(("fp32", engine),),
        parity=parity,
        bench=bench,
        baseline=Baseline(name="main of yesterday", measurements=timings(1.02)[:3]),
        notes=("TensorRT was not run: there is no GPU here.",),
    )
    return build_document(job, results, COMMAND)


def entry_of(
    stage: str, result: R, seconds: float = 0.0, *, reused: bool = False, files: Mapping[str, str] | None = None
) -> Entry[R]:
    """A stage that is done."""
    return Entry(
        folder=Path(),
        stage=stage,
        inputs={"packages": {"numpy": np.__version__}},
        files=files or {},
        result=result,
        seconds=seconds,
        reused=reused,
        reason="nothing it depends on changed" if reused else "not done before",
    )


def file_result(path: Path, ranges: tuple[RangeRow, ...] = ()) -> FileResult:
    artifact = open_artifact(path)
    shares = product_shares(path, artifact.record.signature)
    return FileResult.of(artifact, describe(path).ops, shares, ranges)


@cache
def compared(path: Path, precision: Precision) -> ParityResult:
    """A file against eager PyTorch, each once."""
    candidate = open_candidate(path)
    artifact = candidate.artifact
    cases = select_cases(artifact.record, sweep="quick")
    done = check(
        artifact, load_for(artifact, None), cases, Replay(file=path, seed=0, sweep="quick"), candidate, evidence=True
    )
    return ParityResult.of(done, path.name, precision)


@cache
def ranges_of(path: Path) -> tuple[RangeRow, ...]:
    return tuple(
        RangeRow(tensor=item.tensor, node=item.node, op=item.op, absmax=item.absmax, limit=65504.0, kept=False)
        for item in audit(path, "fp16", sweep="quick").ranges
    )


def engine_result(source: Artifact) -> EngineResult:
    """An engine that cannot run here; made up, since building one takes a GPU."""
    nothing: dict[str, Any] = {"settings": {}, "profiles": (), "tensors": (), "warnings": (), "tools": {}}
    record = EngineRecord(
        engine="rtx",
        version="1.7.1.116",
        targets=("sm86", "sm89"),
        onnx=source.path.name,
        onnx_sha256=source.sha256,
        histogram={"MATRIX_MULTIPLY": {"FLOAT": 41}, "NORMALIZATION": {"FLOAT": 9}},
        seconds=1.0,
        source=source.record,
        **nothing,
    )
    return EngineResult(file=ENGINE, sha256=source.sha256[::-1], bytes=5_214_321, record=record)


def timings(factor: float = 1.0) -> tuple[Timing, ...]:
    """Times as bench gives them; made up, since the tests measure nothing."""

    def timing(candidate: str, prompts: int, points: int, median: float) -> Timing:
        return Timing(
            candidate=candidate,
            images=1,
            prompts=prompts,
            points=points,
            median=median,
            low=median * 0.97,
            high=median * 1.06,
            per_prompt=median / prompts,
        )

    loads: Sequence[tuple[int, int, float]] = [(1, 2, 1.0), (8, 2, 5.5), (64, 10, 47.0)]
    return (
        *(timing("sam_tiny.decoder.onnx", prompts, points, factor * 4e-4 * scale) for prompts, points, scale in loads),
        *(timing("sam_tiny.decoder.onnx@eager", prompts, points, 9e-4 * scale) for prompts, points, scale in loads),
        Timing(
            candidate="a peer",
            images=1,
            prompts=64,
            points=10,
            unsupported="one prompt at a time, and ten points at most",
        ),
    )
