"""One candidate of a benchmark: an exported file on one engine, behind the worker protocol of `benchmark`.

python -m samdec_export.bench_worker ort artifacts/sam_b.prompts.onnx
python -m samdec_export.bench_worker eager artifacts/sam_b.prompts.onnx sam_b.pt
python -m samdec_export.bench_worker peak 1536
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
from typing import Any

import numpy as np

from samdec_export.bench import case_for, open_runner
from samdec_export.feeds import make_feeds
from samdec_export.options import parse_runner
from samdec_export.runner import Feeds, Runner

__all__ = ["main", "serve"]


def main() -> None:
    """Load the candidate and serve runs until standard input ends."""
    kind, path, *checkpoint = sys.argv[1:]
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    if kind == "peak":
        serve(_matmul(int(path), threads))
        return
    runner, signature = open_runner(
        Path(path), parse_runner(kind), Path(checkpoint[0]) if checkpoint else None, threads
    )
    prepared: dict[str, Feeds] = {}

    def run(request: Mapping[str, int]) -> float:
        case = case_for(signature, request)
        if case.name not in prepared:
            prepared.clear()
            prepared[case.name] = make_feeds(signature, case)
        return _seconds(runner, prepared[case.name])

    serve(run)


def _matmul(side: int, threads: int) -> Callable[[Mapping[str, int]], float]:
    """A product of two square matrices, whatever is asked for."""
    from samdec_export.backends.ort import OrtRunner
    from samdec_export.passes.cost import write_matmul

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matmul.onnx"
        write_matmul(path, side)
        runner = OrtRunner(path, threads=threads, arena=True)
    feeds: Feeds = {"x": np.random.default_rng(1).standard_normal((side, side), dtype=np.float32)}
    return lambda _: _seconds(runner, feeds)


def _seconds(runner: Runner, feeds: Feeds) -> float:
    started = time.perf_counter()
    runner.run(feeds)
    return time.perf_counter() - started


def serve(run: Callable[[Mapping[str, int]], float]) -> None:
    """Answer requests with the seconds that `run` returns; a ValueError of its says what it does not support."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"seconds": run(json.loads(line))}
        except ValueError as error:
            answer = {"unsupported": str(error)}
        print(json.dumps({**answer, "peak_bytes": _peak_bytes()}), flush=True)


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
