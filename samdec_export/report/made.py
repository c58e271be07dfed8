"""What a run was made of, with and on, and what it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ArtifactEntry", "Checkpoint", "EngineDetails", "Machine", "Provenance", "Stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where the weights came from; `file` and `sha256` are None for seeded ones."""

    file: str | None
    sha256: str | None
    weights_sha256: str
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the run took place on; `gpu` is None where there was none."""

    platform: str
    cpu: str
    threads: int
    gpu: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What it takes to make the same again: weights, versions by package, machine, and the run's whole config."""

    checkpoint: Checkpoint
    tools: Mapping[str, str]
    machine: Machine
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of the run, its seconds, and why it was skipped or failed."""

    name: str
    status: Literal["done", "skipped", "failed"]
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDetails:
    """Of a built engine: its flavour, the GPU generations it is for, and its layers by type and data type."""

    flavour: str
    version: str
    targets: tuple[str, ...]
    histogram: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactEntry:
    """A file that the run made or judged.

    Args:
        name: What the rest of the document calls it; no two are the same.
        kind: ONNX graph or engine.
        precision: fp32, fp16 or bf16.
        file: Its name or path.
        bytes: Its size.
        sha256: Of its bytes.
        status: Whether it ran here and what came of it.
        reason: What there is to say to the status, such as why it was not run.
        operators: Number of nodes by operator.
        casts: How many of them are casts; None where they were not counted.
        products: Share of the operations of matrix products in each data type, 0 to 1.
        kept: Nodes kept in fp32 on purpose, with reasons.
        engine: What there is to say of an engine.
        details: Anything else, such as the opset.
    """

    name: str
    kind: Literal["onnx", "engine"]
    precision: str
    file: str
    bytes: int
    sha256: str
    status: Literal["validated", "failed", "not run"]
    reason: str = ""
    operators: Mapping[str, int] | None = None
    casts: int | None = None
    products: Mapping[str, float] | None = None
    kept: Mapping[str, str] | None = None
    engine: EngineDetails | None = None
    details: Mapping[str, str] | None = None
