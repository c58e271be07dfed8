"""One case: structure first, numbers second, then the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from samdec_export.core.runner import Array, Outputs
from samdec_export.core.signature import Content, DType, TensorSpec
from samdec_export.parity.metrics import MaskMetrics, TensorMetrics, best_mask_agreement, mask_metrics, tensor_metrics
from samdec_export.parity.tolerances import Tolerance

__all__ = ["CaseResult", "OutputMetrics", "Violation", "compare_case", "measure_tensor"]

LEAST_SPAN: Final[dict[Content, float]] = {"scores": 1.0}
"""A predicted IoU is a number between 0 and 1; the only one of a case may be near 0 and has no span of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that a case breaks.

    `severity` is how many times over it is. Where the structure is wrong it is infinite, and `value` and `limit` are
    None.
    """

    output: str
    metric: str
    detail: str
    severity: float = math.inf
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMetrics:
    """Every distance of one output: `masks` for mask logits, `best_mask` for scores of several masks."""

    name: str
    tensor: TensorMetrics
    masks: MaskMetrics | None = None
    best_mask: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What one case showed. A case without metrics and without violations cannot exist."""

    case: str
    outputs: tuple[OutputMetrics, ...]
    violations: tuple[Violation, ...]

    @property
    def passed(self) -> bool:
        """Nothing is out of its limits."""
        return not self.violations


def compare_case(
    name: str,
    specs: tuple[TensorSpec, ...],
    shapes: Mapping[str, tuple[int, ...]],
    reference: Outputs,
    candidate: Outputs,
    limits: Mapping[str, Tolerance],
) -> CaseResult:
    """Compare the outputs of one case.

    Args:
        name: The case's name.
        specs: What the graph returns.
        shapes: The shape that each output must have in this case.
        reference: Outputs that are right.
        candidate: Outputs to judge.
        limits: What each output may differ by.
    """
    structure = tuple(_structure(specs, shapes, reference, candidate))
    if structure:
        return CaseResult(case=name, outputs=(), violations=structure)
    outputs = tuple(_measure(spec, reference[spec.name], candidate[spec.name], limits[spec.name]) for spec in specs)
    violations = tuple(violation for output in outputs for violation in _judge(output, limits[output.name]))
    return CaseResult(case=name, outputs=outputs, violations=violations)


def _structure(
    specs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]], reference: Outputs, candidate: Outputs
) -> Iterator[Violation]:
    names = [spec.name for spec in specs]
    if not names:
        yield Violation(output="", metric="outputs", detail="nothing to compare")
    if list(candidate) != names:
        yield Violation(output="", metric="outputs", detail=f"outputs are {list(candidate)}, not {names}")
        return
    for spec in specs:
        for role, array in (("reference", reference[spec.name]), ("candidate", candidate[spec.name])):
            wider = role == "reference" and spec.dtype == "float16" and array.dtype == np.float32
            for detail in _malformed("float32" if wider else spec.dtype, shapes[spec.name], array):
                yield Violation(output=spec.name, metric="structure", detail=f"{role} {detail}")


def _malformed(dtype: DType, shape: tuple[int, ...], array: Array) -> Iterator[str]:
    if array.dtype != dtype:
        yield f"is {array.dtype}, not {dtype}"
    if array.shape != shape:
        yield f"has shape {array.shape}, not {shape}"
    elif not array.size:
        yield "is empty"
    elif not np.isfinite(array).all():
        yield f"holds {int(np.count_nonzero(~np.isfinite(array)))} NaN or Inf"


def measure_tensor(spec: TensorSpec, reference: Array, candidate: Array) -> TensorMetrics:
    """The distances of one output, at the scale that its content has."""
    return tensor_metrics(reference, candidate, least_span=LEAST_SPAN.get(spec.content, 0.0))


def _measure(spec: TensorSpec, reference: Array, candidate: Array, tolerance: Tolerance) -> OutputMetrics:
    tensor = measure_tensor(spec, reference, candidate)
    return OutputMetrics(
        name=spec.name,
        tensor=tensor,
        masks=mask_metrics(reference, candidate, tolerance.margin * tensor.span) if spec.content == "masks" else None,
        best_mask=best_mask_agreement(reference, candidate, tolerance.relative * tensor.span)
        if spec.content == "scores" and reference.shape[-1] > 1
        else None,
    )


def _judge(output: OutputMetrics, tolerance: Tolerance) -> Iterator[Violation]:
    yield from _at_most(output.name, "relative error", output.tensor.relative, tolerance.relative)
    if output.masks and output.masks.flipped_most > tolerance.pixels:
        yield from _at_least(output.name, "mask IoU", output.masks.iou_min, tolerance.iou)
        yield from _at_most(output.name, "flipped pixels", output.masks.flipped, tolerance.flipped)
    if output.best_mask is not None:
        yield from _at_least(output.name, "best mask kept", output.best_mask, tolerance.best_mask)


def _at_most(output: str, metric: str, value: float, limit: float) -> Iterator[Violation]:
    if not value <= limit:  # a NaN is a violation too
        severity = value / limit if limit else math.inf
        detail = f"{value:.3g} > {limit:.3g}"
        yield Violation(output=output, metric=metric, detail=detail, severity=severity, value=value, limit=limit)


def _at_least(output: str, metric: str, value: float, limit: float) -> Iterator[Violation]:
    if not value >= limit:
        severity = (1 - value) / (1 - limit) if limit < 1 else math.inf
        detail = f"{value:.6g} < {limit:.6g}"
        yield Violation(output=output, metric=metric, detail=detail, severity=severity, value=value, limit=limit)
