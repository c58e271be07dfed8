"""A recorded benchmark that a run's times are judged against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samdec_export.core.errors import UsageError
from samdec_export.report.measured import Timing
from samdec_export.run.config import RunConfig

__all__ = ["RecordedBench", "read_baseline", "timing_of"]

KEY: Final = "gate.latency.baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBench:
    """An earlier benchmark."""

    path: Path
    timings: tuple[Timing, ...]

    @property
    def medians(self) -> dict[tuple[str, int, int, int], float]:
        """Median seconds by file, images, prompts and points."""
        return {
            (item.candidate, item.images, item.prompts, item.points): item.median
            for item in self.timings
            if item.median is not None
        }


def read_baseline(config: RunConfig) -> RecordedBench | None:
    """Return the benchmark that the gate names; None where it names none.

    Raises:
        UsageError: It cannot be read, is no benchmark, or was made with another number of threads.
    """
    if config.gate.latency is None:
        return None
    path = config.gate.latency.baseline
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        timings = tuple(timing_of(item) for item in data["measurements"])
        threads = data["threads"]
        recorded = RecordedBench(path=path, timings=timings)
    except OSError as error:
        raise UsageError(f"{KEY}: {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{KEY}: {path} is not a benchmark.", "Copy the bench.json of a run on this machine, and name the copy."
        ) from error
    if threads != config.bench.threads:
        raise UsageError(
            f"{KEY}: {path} was measured with {threads} threads, and bench.threads is {config.bench.threads}.",
            "Measure both alike.",
        )
    return recorded


def timing_of(measurement: Mapping[str, Any]) -> Timing:
    """Return a measurement of `Benchmarked.to_json` as the document has it; files by name, whatever their folder.

    Raises:
        KeyError, TypeError, ValueError: It is no such measurement.
    """
    low, high = measurement.get("spread") or (None, None)
    load = measurement["workload"]
    return Timing(
        candidate=Path(measurement["candidate"]).name,
        images=int(load["images"]),
        prompts=int(load["prompts"]),
        points=int(load["points"]),
        median=_seconds(measurement.get("median")),
        low=_seconds(low),
        high=_seconds(high),
        per_prompt=_seconds(measurement.get("per_prompt")),
        unsupported=str(measurement.get("unsupported", "")),
    )


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
