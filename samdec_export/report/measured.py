"""What was measured: magnitudes and times."""

from __future__ import annotations

from dataclasses import dataclass

from samdec_export.core.results import Number

__all__ = ["Baseline", "Latency", "RangeRow", "Timing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRow:
    """The largest magnitude of one tensor beside the largest number of the precision; `kept`: it stays in fp32."""

    tensor: str
    node: str
    op: str
    absmax: Number
    limit: float
    kept: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One candidate on one workload, in seconds a run: median and quartiles; all None where `unsupported` says why."""

    candidate: str
    images: int
    prompts: int
    points: int
    median: Number = None
    low: Number = None
    high: Number = None
    per_prompt: Number = None
    unsupported: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Earlier measurements to compare with, and what they are of."""

    name: str
    measurements: tuple[Timing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Measured times; `device` is what they were measured on."""

    device: str
    threads: int | None
    measurements: tuple[Timing, ...]
    baseline: Baseline | None = None
