"""What a document is made of: the run and its files, what was measured, what was compared.

The docstrings are the descriptions in the JSON Schema; `core.results` has the types of the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from samdec_export.core.results import CaseResult, Floor, Histogram, Number, Tolerance, ValidationResult
from samdec_export.core.rules import Bound

__all__ = [
    "ArtifactEntry",
    "Baseline",
    "Checkpoint",
    "Comparison",
    "EngineDetails",
    "Latency",
    "Machine",
    "Provenance",
    "RangeRow",
    "Stage",
    "Timing",
    "Verdict",
]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate against its reference, over every case.

    Args:
        artifact: The name of the artifact that is judged.
        candidate: The engine that ran it.
        reference: What is right.
        precision: That of the artifact.
        passed: Whether nothing is out of its limits.
        limits: What its precision allows.
        allowed: By output, the largest relative error that passes in some case: the limit, or more where the floor of
            that case calls for it.
        floors: By output, the largest of the reference's own distances to float64 that were measured.
        cases: What was compared.
        errors: By output, the spread of its errors over all cases.
        findings: Reasons to fail that belong to no case.
    """

    artifact: str
    candidate: str
    reference: str
    precision: str
    passed: bool
    limits: Tolerance
    allowed: Mapping[str, float]
    floors: Mapping[str, Floor]
    cases: tuple[CaseResult, ...]
    errors: Mapping[str, Histogram] | None = None
    findings: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: ValidationResult, artifact: str, precision: str) -> Comparison:
        """Return what a validation found, with the name of the artifact and its precision."""
        found = {field.name: getattr(result, field.name) for field in fields(cls) if hasattr(result, field.name)}
        return cls(artifact=artifact, precision=precision, **found)

    @property
    def name(self) -> str:
        """Return what verdicts and masks call it."""
        return f"{self.candidate} against {self.reference}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One threshold applied.

    Args:
        passed: Whether what was measured is within what is allowed.
        threshold: Its name in the config.
        artifact: The name of the artifact.
        comparison: The comparison's name; empty where the threshold is not of one.
        case: The case that decided; empty where there is none.
        output: The output that decided; empty where there is none.
        measured: What was found there.
        allowed: The threshold.
        bound: Whether it bounds from above or from below.
        sentence: Which threshold, on which case, by how much, for somebody who reads nothing else.
    """

    passed: bool
    threshold: str
    artifact: str
    comparison: str = ""
    case: str = ""
    output: str = ""
    measured: Number = None
    allowed: Number = None
    bound: Bound | None = None
    sentence: str
