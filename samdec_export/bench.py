"""The flow of a benchmark: exported files in, measured times beside counted costs out."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samdec_export.benchmark import Candidate, Measurement, Workload, measure
from samdec_export.errors import UsageError
from samdec_export.feeds import Case
from samdec_export.files import staging
from samdec_export.gate import open_artifact
from samdec_export.log import step
from samdec_export.options import BenchRunner, parse_runner
from samdec_export.passes.cost import Cost, count_cost
from samdec_export.runner import Runner
from samdec_export.signature import Signature

__all__ = [
    "BenchEntry",
    "Benchmarked",
    "bench",
    "case_for",
    "draw",
    "open_runner",
    "parse_entry",
    "parse_workloads",
]

WORKER = (sys.executable, "-m", "samdec_export.bench_worker")
PEAK = "matmul"
PEAK_SIDE = 1536
"""Side of the matrices whose product is the yardstick of speed: 7.2 Gflop, well above any cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEntry:
    """An exported file and the engine to time it on."""

    path: Path
    runner: BenchRunner = "ort"
    checkpoint: Path | None = None
    name: str

    @property
    def candidate(self) -> Candidate:
        """The program that runs it."""
        checkpoint = [str(self.checkpoint)] if self.checkpoint else []
        return Candidate(name=self.name, command=(*WORKER, self.runner, str(self.path), *checkpoint))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarked:
    """Measured times, counted costs, and the speed of a plain matrix product in the same run, in flop/s."""

    measurements: tuple[Measurement, ...]
    costs: Mapping[tuple[str, Workload], Cost]
    peak_flops: float
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Every repeat, with flops, bytes and speeds where they were counted."""
        rows = []
        for item in self.measurements:
            cost = self.costs.get((item.candidate, item.workload))
            counted = (
                {"flops": cost.flops, "bytes": cost.bytes, "flops_per_second": cost.flops / item.median}
                if cost and item.seconds
                else {}
            )
            rows.append({**item.to_json(), **counted})
        return {"threads": self.threads, "peak_flops_per_second": self.peak_flops, "measurements": rows}


def parse_entry(text: str, checkpoint: Path | None) -> BenchEntry:
    """Read `FILE` or `FILE@RUNNER`.

    Raises:
        UsageError: There is no such runner.
    """
    path, at, kind = text.rpartition("@")
    if not at:
        return BenchEntry(path=Path(text), name=text)
    return BenchEntry(path=Path(path), runner=parse_runner(kind), checkpoint=checkpoint, name=text)


def parse_workloads(images: str, prompts: str, points: str) -> list[Workload]:
    """Every combination of comma-separated counts.

    Raises:
        UsageError: One is not a positive whole number.
    """

    def counts(name: str, text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UsageError(f"--{name} {text!r} is not a list of positive whole numbers.", "Write such as 1,8,64.")
        return [int(part) for part in parts]

    return Workload.grid(counts("images", images), counts("prompts", prompts), counts("points", points))


def draw(done: Benchmarked, path: Path) -> None:
    """Write a picture of cost against prompts.

    Raises:
        DependencyError, UsageError, GraphError: matplotlib is missing, or the file cannot be written.
    """
    from samdec_export.bench_plot import plot_cost

    with staging(path.parent) as scratch:
        plot_cost(done.measurements, scratch / path.name)
        os.replace(scratch / path.name, path)


def bench(
    entries: Sequence[BenchEntry],
    workloads: Sequence[Workload],
    *,
    extra: Sequence[Candidate] = (),
    threads: int = 2,
    warmups: int = 2,
    repeats: int = 7,
) -> Benchmarked:
    """Time exported files side by side, each on its engine in a process of its own.

    Args:
        entries: What to time.
        workloads: What to run.
        extra: Other programs that speak the worker protocol.
        threads: Threads that each may use.
        warmups: Rounds that are not counted.
        repeats: Rounds that are.

    Raises:
        SamdecError: A file is not of this project, or a candidate's process stopped.
    """
    costs: dict[tuple[str, Workload], Cost] = {}
    for entry in entries:
        signature = open_artifact(entry.path).record.signature
        with step(f"Counting {entry.name}"):
            for load in workloads:
                try:
                    sizes = case_for(signature, asdict(load)).sizes
                except ValueError:
                    continue
                shapes = {spec.name: spec.concrete(sizes) for spec in signature.inputs}
                costs[entry.name, load] = count_cost(entry.path, shapes)
    peak = Candidate(name=PEAK, command=(*WORKER, "peak", str(PEAK_SIDE)))
    candidates = [*(entry.candidate for entry in entries), *extra, peak]
    found = measure(candidates, workloads, threads=threads, warmups=warmups, repeats=repeats)
    matmul = [seconds for item in found if item.candidate == PEAK for seconds in item.seconds]
    return Benchmarked(
        measurements=tuple(item for item in found if item.candidate != PEAK),
        costs=costs,
        peak_flops=2 * PEAK_SIDE**3 / statistics.median(matmul),
        threads=threads,
    )


def open_runner(path: Path, kind: BenchRunner, checkpoint: Path | None, threads: int) -> tuple[Runner, Signature]:
    """An exported file on one engine, as a benchmark runs it.

    Args:
        path: The ONNX file.
        kind: `ort` runs the file; `eager` and `compile` run the module that it was exported from.
        checkpoint: The weights, for those two; None where they are embedded.
        threads: Threads within an operator; torch takes its own from the environment.

    Raises:
        SamdecError: As the stages say.
    """
    from samdec_export.backends.eager import EagerRunner
    from samdec_export.backends.ort import OrtRunner
    from samdec_export.models.checkpoint import load_model
    from samdec_export.models.graphs import build_graph

    record = open_artifact(path).record
    if kind == "ort":
        return OrtRunner(path, threads=threads, arena=True), record.signature
    graph = build_graph(load_model(checkpoint, record.model).decoder, record.grid, record.options)
    if kind == "compile":
        return EagerRunner.compiled(graph, record.signature), record.signature
    return EagerRunner(graph, record.signature, whole=True), record.signature


def case_for(signature: Signature, request: Mapping[str, int]) -> Case:
    """The case that a request means to this graph; axes that it does not name take their usual size.

    Raises:
        ValueError: The graph takes one image only.
    """
    names = {dim.name for dim in signature.dims}
    if "images" not in names and request["images"] > 1:
        raise ValueError("one image at a time")
    sizes = {dim.name: dim.opt for dim in signature.dims}
    wanted = {**request, "batch": request["prompts"]}
    return Case(sizes=sizes | {name: size for name, size in wanted.items() if name in names})
