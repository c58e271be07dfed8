"""One candidate of a benchmark: an exported file on one engine, behind the worker protocol of `bench.measure`.

python -m samdec_export.bench.worker ort artifacts/sam_b.prompts.onnx
python -m samdec_export.bench.worker eager artifacts/sam_b.prompts.onnx sam_b.pt
python -m samdec_export.bench.worker trt artifacts/sam_b.prompts.fp16.sm89.engine
python -m samdec_export.bench.worker peak 1536
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from samdec_export.bench.side_by_side import case_for, open_runner
from samdec_export.core.errors import SamdecError
from samdec_export.core.feeds import make_feeds
from samdec_export.core.options import parse_runner
from samdec_export.core.runner import Feeds, Runner, TimedRunner

__all__ = ["main", "serve"]

Run: TypeAlias = Callable[[Mapping[str, int]], float | list[float]]
"""Gives the seconds of a run, or of several, for a request."""


def main() -> None:
    """Load the candidate and serve runs until standard input ends; an expected failure exits with its type's code."""
    kind, path, *checkpoint = sys.argv[1:]
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    try:
        run = _matmul(int(path), threads) if kind == "peak" else _candidate(kind, path, checkpoint, threads)
        serve(run)
    except SamdecError as error:
        print(error.template, file=sys.stderr)
        sys.exit(error.exit_code)


def _candidate(kind: str, path: str, checkpoint: list[str], threads: int) -> Run:
    """Run a file for any request; inputs are made and put in their place once for requests that follow each other."""
    runner, candidate = open_runner(
        Path(path), parse_runner(kind), Path(checkpoint[0]) if checkpoint else None, threads
    )
    prepared: dict[str, Callable[[], list[float]]] = {}

    def run(request: Mapping[str, int]) -> list[float]:
        case = case_for(candidate, request)
        if case.name not in prepared:
            prepared.clear()
            prepared[case.name] = _timer(runner, make_feeds(candidate.artifact.record.signature, case))
        return prepared[case.name]()

    return run


def _matmul(side: int, threads: int) -> Run:
    """Return what multiplies two square matrices, whatever is asked for."""
    from samdec_export.backends.ort import OrtRunner
    from samdec_export.export.cost import write_matmul

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matmul.onnx"
        write_matmul(path, side)
        runner = OrtRunner(path, threads=threads, arena=True)
    feeds: Feeds = {"x": np.random.default_rng(1).standard_normal((side, side), dtype=np.float32)}
    timer = _timer(runner, feeds)
    return lambda _: timer()


def _timer(runner: Runner, feeds: Feeds) -> Callable[[], list[float]]:
    """Return the runner's own clock if it has one, or else the host's around a run."""
    if isinstance(runner, TimedRunner):
        return runner.timer(feeds)

    def seconds() -> list[float]:
        started = time.perf_counter()
        runner.run(feeds)
        return [time.perf_counter() - started]

    return seconds


def serve(run: Run) -> None:
    """Answer requests with the seconds that `run` returns; a ValueError of its says what it does not support."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"seconds": run(json.loads(line))}
        except ValueError as error:
            answer = {"unsupported": str(error)}
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({**answer, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
