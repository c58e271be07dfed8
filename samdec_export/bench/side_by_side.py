"""The flow of a benchmark: exported files and engines in, measured times beside counted costs out."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.candidates import BACKENDS, Candidate, Timed, file_kind, open_candidate
from samdec_export.backends.tensorrt.options import profile_for
from samdec_export.bench.measure import Measurement, Program, Workload, measure
from samdec_export.bench.options import BenchOptions
from samdec_export.core.drawing import Case
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.log import log, step
from samdec_export.core.options import BENCH_RUNNERS, BenchRunner
from samdec_export.core.runner import Runner
from samdec_export.export.cost import Cost, count_cost

if TYPE_CHECKING:
    from samdec_export.models.sam.graphs import ExportGraph

__all__ = ["BenchEntry", "Benchmarked", "bench_entries", "case_for", "open_runner", "parse_entry"]

WORKER = (sys.executable, "-m", "samdec_export.bench.worker")
WARMUPS = 2
PEAK = "matmul"
PEAK_SIDE = 1536
"""Side of the matrices whose product is the yardstick of speed: 7.2 Gflop, well above any cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEntry:
    """An exported file or a built engine, and what to time it on."""

    path: Path
    runner: BenchRunner = "ort"
    checkpoint: Path | None = None
    name: str

    @property
    def program(self) -> Program:
        """Return the program that runs it."""
        checkpoint = [str(self.checkpoint)] if self.checkpoint else []
        return Program(name=self.name, command=(*WORKER, self.runner, str(self.path), *checkpoint))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarked:
    """Measured times, counted costs, and the speed of a plain matrix product in the same run, in flop/s.

    That product ran on the CPU, and says nothing of the candidates in `on_gpu`.
    """

    measurements: tuple[Measurement, ...]
    costs: Mapping[tuple[str, Workload], Cost]
    peak_flops: float
    threads: int
    on_gpu: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """Return every repeat, with flops, bytes and speeds where they were counted."""
        rows = []
        for item in self.measurements:
            cost = self.costs.get((item.candidate, item.workload))
            counted = (
                {"flops": cost.flops, "bytes": cost.bytes, "flops_per_second": cost.flops / item.median}
                if cost and item.seconds
                else {}
            )
            rows.append({**item.to_json(), **counted, "on_gpu": item.candidate in self.on_gpu})
        return {"threads": self.threads, "peak_flops_per_second": self.peak_flops, "measurements": rows}


def parse_entry(text: str, checkpoint: Path | None) -> BenchEntry:
    """Read `FILE` or `FILE@RUNNER`; the first runner that takes such a file is the usual one.

    Raises:
        UsageError: There is no such runner, or it does not run such a file.
    """
    path, _, kind = text.rpartition("@") if "@" in text else (text, "", "")
    files = file_kind(Path(path))
    known = [runner for runner in BENCH_RUNNERS if BACKENDS[runner].files == files]
    for runner in known:
        if runner == (kind or known[0]):
            return BenchEntry(path=Path(path), runner=runner, checkpoint=checkpoint if kind else None, name=text)
    raise UsageError(f"There is no runner {kind!r} for {path}.", f"Known: {', '.join(known)}.")


def bench_entries(
    entries: Sequence[BenchEntry],
    workloads: Sequence[Workload],
    *,
    extra: Sequence[Program] = (),
    threads: int = BenchOptions.threads,
    repeats: int = BenchOptions.repeats,
) -> Benchmarked:
    """Time files side by side, each on its engine in a process of its own; `extra` programs speak the worker protocol.

    Raises:
        SamdecError: A file is not of this project, or a candidate's process stopped.
    """
    costs: dict[tuple[str, Workload], Cost] = {}
    for entry in entries:
        candidate = _open(entry)
        if candidate.onnx is None:
            log.info("%s is not counted: the ONNX file it was built from does not lie beside it.", entry.name)
            continue
        with step(f"Counting {entry.name}"):
            for load in workloads:
                try:
                    sizes = case_for(candidate, asdict(load)).sizes
                except ValueError:
                    continue
                shapes = {spec.name: spec.concrete(sizes) for spec in candidate.artifact.record.signature.inputs}
                costs[entry.name, load] = count_cost(candidate.onnx, shapes)
    peak = Program(name=PEAK, command=(*WORKER, "peak", str(PEAK_SIDE)))
    programs = [*(entry.program for entry in entries), *extra, peak]
    found = measure(programs, workloads, threads=threads, warmups=WARMUPS, repeats=repeats)
    matmul = [seconds for item in found if item.candidate == PEAK for seconds in item.seconds]
    return Benchmarked(
        measurements=tuple(item for item in found if item.candidate != PEAK),
        costs=costs,
        peak_flops=2 * PEAK_SIDE**3 / statistics.median(matmul),
        threads=threads,
        on_gpu=frozenset(entry.name for entry in entries if BACKENDS[entry.runner].on_gpu),
    )


def _open(entry: BenchEntry) -> Candidate:
    """Open the file of an entry, which is known to run here as far as can be told without running it."""
    backend = BACKENDS[entry.runner]
    candidate = open_candidate(entry.path, "cuda" if backend.provider == "cuda" else None)
    precision = candidate.artifact.record.precision
    if precision not in backend.precisions:
        rows = ((name, BACKENDS[name]) for name in BENCH_RUNNERS)
        able = [f"@{name}" for name, row in rows if row.files == backend.files and precision in row.precisions]
        raise UsageError(f"{entry.path} is {precision}: {backend.refusal}.", f"Time it with {' or '.join(able)}.")
    return candidate


def open_runner(path: Path, kind: BenchRunner, checkpoint: Path | None, threads: int) -> tuple[Runner, Candidate]:
    """Open a file as a benchmark runs it, in a row of BACKENDS; SamdecError as the stages say.

    `checkpoint` has the weights of the module that the file was exported from; None where they are embedded. `threads`
    are those within an operator; torch takes its own from the environment.
    """
    candidate, backend = _open(BenchEntry(path=path, runner=kind, name=path.name)), BACKENDS[kind]
    assert backend.time is not None, "BenchRunner names rows that take times"
    timed = Timed(candidate=candidate, threads=threads, module=lambda: _module(candidate, checkpoint))
    return backend.time(timed), candidate


def _module(candidate: Candidate, checkpoint: Path | None) -> ExportGraph:
    from samdec_export.models.checkpoint import load_for
    from samdec_export.models.sam.graphs import build_graph

    record = candidate.artifact.record
    return build_graph(load_for(candidate.artifact, checkpoint).decoder, record.grid, record.options)


def case_for(candidate: Candidate, request: Mapping[str, int]) -> Case:
    """Return the case that a request means to a file; axes that it does not name take their usual size.

    Raises:
        ValueError: The graph takes one image only, or the engine has no profile for these sizes.
    """
    signature = candidate.artifact.record.signature
    names = {dim.name for dim in signature.dims}
    if "images" not in names and request["images"] > 1:
        raise ValueError("one image at a time")
    sizes = {dim.name: dim.opt for dim in candidate.signatures[0].dims}
    wanted = {**request, "batch": request["prompts"]}
    sizes |= {name: size for name, size in wanted.items() if name in names}
    if candidate.engine:
        try:
            profile_for(candidate.engine.record.profiles, sizes)
        except EngineError as error:
            raise ValueError(error.message) from error
    return Case(sizes=sizes)
