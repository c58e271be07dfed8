"""The flow of a run: a config goes in, files that were proved and a report that says so come out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samdec_export.backends.candidates import BACKENDS
from samdec_export.backends.tensorrt.index import obstacle
from samdec_export.core.dtypes import Precision
from samdec_export.core.errors import SamdecError, ValidationError
from samdec_export.core.files import staging
from samdec_export.core.log import step
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.report.document import Document
from samdec_export.report.parts import Baseline
from samdec_export.report.render import ReportFormat, read, render
from samdec_export.run import stages
from samdec_export.run.config import RunConfig
from samdec_export.run.document import Results, build_document, engine_obstacles
from samdec_export.run.job import Job, hash_of, read_baseline
from samdec_export.run.ledger import Entry, FileHashes, Ledger, Stage, StageOutput, open_ledger
from samdec_export.run.results import BenchResult, EngineResult, FileResult, StageResult

__all__ = ["Ran", "run"]

REPORTS: Final[dict[str, ReportFormat]] = {
    "report.json": "json",
    "report.html": "html",
    "report.md": "markdown",
    "report.xml": "junit",
}
"""What is written at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A run that came to its end: what it has to say, where that is, and its stages."""

    document: Document
    out: Path
    stages: tuple[Entry[Any], ...]

    def require(self) -> None:
        """Raise a ValidationError with the sentence of the first threshold that does not hold."""
        failed = [verdict for verdict in self.document.verdicts if not verdict.passed]
        if failed:
            more = f" {len(failed) - 1} more failed." if len(failed) > 1 else ""
            raise ValidationError(f"{failed[0].sentence}{more}", f"See {self.out / 'report.md'}.")


def run(config: RunConfig, command: str, *, rehash: bool = False) -> Ran:
    """Export, simplify, convert, build, compare, time and report; what did not change is left as it is.

    The report names `command` as what runs it again. `rehash` reads the checkpoint again although its size, time and
    inode are as before.

    Raises:
        SamdecError: As the stages say. What was done by then is in the ledger, and is not done again.
    """
    baseline = read_baseline(config)
    hash_of(config.parity.feeds, "parity.feeds")  # a wrong name is known before the work
    with open_ledger(config.out) as ledger:
        try:
            return _run(Job.of(config, FileHashes(ledger.folder, again=rehash)), ledger, baseline, command)
        except SamdecError:
            for name in REPORTS:  # an earlier run's would pass for this one's
                (config.out / name).unlink(missing_ok=True)
            raise


def _run(job: Job, ledger: Ledger, baseline: Baseline | None, command: str) -> Ran:
    files = _files(job, ledger)
    engines, notes = _engines(job, ledger, files)
    exported = files["fp32"]
    parity = [
        ledger.run_stage(stages.parity_stage(job, exported, entry, precision)) for precision, entry in files.items()
    ]
    run_here = [(precision, entry) for precision, entry in engines if not obstacle(entry.result.record, job.machine)]
    tried = [
        ledger.run_stage(stages.engine_parity_stage(job, exported, entry, precision)) for precision, entry in run_here
    ]
    ran = [entry for (_, entry), found in zip(run_here, tried, strict=True) if found.result.comparisons]
    bench = _bench(job, ledger, files, ran)
    results = Results(
        stages=tuple(ledger.entries),
        files=files,
        engines=engines,
        parity=(*parity, *tried),
        bench=bench,
        baseline=baseline,
        notes=notes,
    )
    entry = ledger.run_stage(_report_stage(job, results, command))
    return Ran(document=read(entry.file("report.json")), out=job.config.out, stages=tuple(ledger.entries))


def _files(job: Job, ledger: Ledger) -> dict[Precision, Entry[FileResult]]:
    """Make the ONNX files: by precision, fp32 first."""
    traced = ledger.run_stage(stages.trace_stage(job, ledger.folder))
    files: dict[Precision, Entry[FileResult]] = {"fp32": ledger.run_stage(stages.simplify_stage(job, traced))}
    for precision in job.config.low_precisions:
        files[precision] = ledger.run_stage(stages.convert_stage(job, files["fp32"], precision))
    return files


def _engines(
    job: Job, ledger: Ledger, files: Mapping[Precision, Entry[FileResult]]
) -> tuple[tuple[tuple[Precision, Entry[EngineResult]], ...], tuple[str, ...]]:
    """Build the engines, each with the precision of its file; and say what was left out."""
    wanted, notes = _wanted_engines(job)
    out = job.config.out
    built = [
        (precision, ledger.run_stage(stages.engine_stage(job, files[precision], engine, precision, folder)))
        for engine in wanted
        for folder in (out if len(wanted) == 1 else out / engine,)  # two flavours may give a file the same name
        for precision in job.config.engine_precisions
    ]
    return tuple(built), notes


def _wanted_engines(job: Job) -> tuple[tuple[EngineName, ...], tuple[str, ...]]:
    asked = job.config.engines.build
    if asked != "auto":
        return asked, ()
    if job.config.graph == "meta":
        return (), ("No engine was built: TensorRT takes no sizes that follow from floats, as those of meta do.",)
    obstacles = {engine: job.machine.obstacle(engine) for engine in ENGINES}
    able = tuple(engine for engine, obstacle in obstacles.items() if not obstacle)[:1]
    return able, () if able else (f"No engine was built: {'; '.join(obstacles.values())}.",)


def _bench(
    job: Job,
    ledger: Ledger,
    files: Mapping[Precision, Entry[FileResult]],
    engines: Sequence[Entry[EngineResult]],
) -> Entry[BenchResult] | None:
    """Time the files that ONNX Runtime can run on the CPU, and the engines that ran."""
    timed = [files[precision] for precision in job.config.precisions if precision in BACKENDS["ort"].precisions]
    if not job.config.bench.enabled or not (timed or engines):
        return None
    return ledger.run_stage(stages.bench_stage(job, timed, engines))


def _report_stage(job: Job, results: Results, command: str) -> Stage[StageResult]:
    config = job.config

    def make() -> StageOutput[StageResult]:
        document = build_document(job, results, command)
        with step("Writing the report"), staging(config.out) as scratch:
            for name, kind in REPORTS.items():
                (scratch / name).write_text(render(document, kind), encoding="utf-8")
            for name in REPORTS:
                os.replace(scratch / name, config.out / name)
        return StageOutput(files=tuple(config.out / name for name in REPORTS), result=StageResult())

    baseline = config.gate.latency.baseline if config.gate.latency else None
    own = {
        "stages": {entry.stage: entry.hash for entry in results.stages},
        "config": config.model_dump(mode="json"),
        "command": command,
        "engines": engine_obstacles(job, results),
        "gate.latency.baseline": hash_of(baseline, "gate.latency.baseline"),
    }
    return Stage(name="report", inputs=job.inputs((), own), result=StageResult, make=make)
