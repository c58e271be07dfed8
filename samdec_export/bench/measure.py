"""Time programs side by side: one process each, fixed threads, interleaved repeats.

Any program can be timed that speaks the worker protocol: it prints a line `{"ready": true}`, then answers each line
of JSON on its standard input, `{"images": 1, "prompts": 8, "points": 2}`, by running once and printing
`{"seconds": 0.12, "peak_bytes": 123456}`, or `{"unsupported": "why"}`. One that runs several times for a request, as a
GPU should that is not to fall asleep between, gives a list of seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import IO, Any, Final

import numpy as np

from samdec_export.core.errors import DependencyError, EngineError, GraphError
from samdec_export.core.log import log, track

__all__ = ["Measurement", "Program", "Workload", "measure"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LINES_KEPT = 3
PERCENTILES = (50, 90, 99)

FAILURES: Final = {kind.exit_code: kind for kind in (EngineError, DependencyError)}
"""What a worker of this project means by its exit code; of every other program that says nothing."""

SETTLE = 0.2
"""Seconds between runs: an engine's idle threads spin for a while, and would slow the next program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one run decodes: `prompts` prompts of `points` points on each of `images` images."""

    images: int
    prompts: int
    points: int

    @staticmethod
    def grid(images: Iterable[int], prompts: Iterable[int], points: Iterable[int]) -> list[Workload]:
        """Return every combination, smallest first, so that a process's peak memory is that of its latest workload."""
        every = [Workload(images=i, prompts=p, points=n) for i, p, n in product(images, prompts, points)]
        return sorted(every, key=lambda load: (load.images * load.prompts, load.points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to time: what reports call it, and its command line."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The program `candidate` on one workload: the seconds of every repeat; none where `unsupported` says why."""

    candidate: str
    workload: Workload
    seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    unsupported: str = ""

    @property
    def median(self) -> float:
        """Return the seconds of a run."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """Return the quartiles, in seconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(low), float(high)

    @property
    def percentiles(self) -> dict[str, float]:
        """Return the seconds that half, nine in ten, and ninety-nine in a hundred runs take at most."""
        ranks = np.percentile(self.seconds, PERCENTILES)
        return {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, ranks, strict=True)}

    @property
    def prompts_per_second(self) -> float:
        """Return the prompts of a run by its median seconds."""
        return 1 / self.per_prompt

    @property
    def per_prompt(self) -> float:
        """Return the median seconds for each prompt of each image."""
        return self.median / (self.workload.images * self.workload.prompts)

    @property
    def per_image(self) -> float:
        """Return the median seconds for each image."""
        return self.median / self.workload.images

    def to_json(self) -> dict[str, Any]:
        """Return the raw repeats and what follows from them."""
        names = ("median", "spread", "per_prompt", "per_image", "percentiles", "prompts_per_second")
        return {**asdict(self), **({name: getattr(self, name) for name in names} if self.seconds else {})}


@dataclass(slots=True)
class _Worker:
    """A program's process."""

    program: Program
    threads: int
    process: subprocess.Popen[str] = field(init=False)
    errors: IO[str] = field(init=False)

    def __enter__(self) -> _Worker:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(self.threads))}
        self.errors = tempfile.TemporaryFile("w+")  # closed in __exit__
        self.process = subprocess.Popen(
            self.program.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def run(self, workload: Workload) -> Mapping[str, Any]:
        """Run once, and return the answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asdict(workload)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read says why
        return self.read()

    def read(self) -> Mapping[str, Any]:
        """Return the next answer; the first one comes when the program is loaded."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            answer: Mapping[str, Any] = json.loads(line)
        except ValueError as error:
            self.process.wait(timeout=10)
            self.errors.seek(0)
            reason = " / ".join(self.errors.read().strip().splitlines()[-LINES_KEPT:])
            raise FAILURES.get(self.process.returncode, GraphError)(
                f"The benchmark's candidate {self.program.name} stopped: {reason or 'no message'}",
                "Run it alone: " + " ".join(self.program.command),
            ) from error
        return answer


def measure(
    programs: Sequence[Program], workloads: Sequence[Workload], *, threads: int, warmups: int, repeats: int
) -> list[Measurement]:
    """Time every program, with so many threads, on every workload: `warmups` rounds are not counted, `repeats` are.

    Each round runs every program once, so that what else the machine does falls on all.

    Raises:
        GraphError, EngineError, DependencyError: A program's process stopped.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(program, threads)) for program in programs]
        for worker in track(workers, "Loading"):
            worker.read()
        rounds = [(load, number) for load in workloads for number in range(-warmups, repeats)]
        answers: dict[tuple[str, Workload], list[Mapping[str, Any]]] = {}
        for load, number in track(rounds, "Timing"):
            for worker in workers:
                answer = worker.run(load)
                time.sleep(SETTLE)
                if number >= 0:
                    answers.setdefault((worker.program.name, load), []).append(answer)
    measurements = [_measurement(name, load, found) for (name, load), found in answers.items()]
    for item in measurements:
        if item.unsupported:
            log.info("%s cannot run %s: %s", item.candidate, item.workload, item.unsupported)
    return measurements


def _measurement(name: str, workload: Workload, answers: list[Mapping[str, Any]]) -> Measurement:
    refused = next((answer["unsupported"] for answer in answers if "unsupported" in answer), "")
    if refused:
        return Measurement(candidate=name, workload=workload, unsupported=refused)
    return Measurement(
        candidate=name,
        workload=workload,
        seconds=tuple(seconds for answer in answers for seconds in np.atleast_1d(answer["seconds"]).tolist()),
        peak_bytes=max(answer["peak_bytes"] for answer in answers),
    )
