"""The outputs of one case: structure first, numbers second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from samdec_export.core.results import Limit, OutputMetrics, TensorMetrics, Violation
from samdec_export.core.runner import Array, Outputs
from samdec_export.core.signature import Content, DType, TensorSpec
from samdec_export.parity.metrics import best_mask_agreement, mask_metrics, tensor_metrics, tilt_of

__all__ = ["measure_outputs", "measure_tensor", "structure_problems"]

LEAST_SPAN: Final[dict[Content, float]] = {"scores": 1.0}
"""A predicted IoU is a number between 0 and 1; the only one of a case may be near 0 and has no span of its own."""


def structure_problems(
    specs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]], reference: Outputs, candidate: Outputs
) -> Iterator[Violation]:
    """Find what keeps outputs from being compared: names, dtypes, shapes, and numbers that are not finite.

    Args:
        specs: What the graph returns.
        shapes: The shape that each output must have in this case.
        reference: Outputs that are right.
        candidate: Outputs to judge.
    """
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
    """Return the distances of one output, at the scale that its content has."""
    return tensor_metrics(reference, candidate, least_span=LEAST_SPAN.get(spec.content, 0.0))


def measure_outputs(
    specs: tuple[TensorSpec, ...], reference: Outputs, candidate: Outputs, limits: Mapping[str, Limit]
) -> tuple[OutputMetrics, ...]:
    """Return every metric of outputs of the right structure; limits say which pixels and scores are undecided."""
    return tuple(_measure(spec, reference[spec.name], candidate[spec.name], limits[spec.name]) for spec in specs)


def _measure(spec: TensorSpec, reference: Array, candidate: Array, limit: Limit) -> OutputMetrics:
    tensor = measure_tensor(spec, reference, candidate)
    span = tensor.span or 0.0
    return OutputMetrics(
        name=spec.name,
        tensor=tensor,
        tilt=tilt_of(reference, candidate, span, picture=spec.content == "masks"),
        masks=mask_metrics(reference, candidate, limit.margin * span) if spec.content == "masks" else None,
        best_mask=best_mask_agreement(reference, candidate, limit.relative * span)
        if spec.content == "scores" and reference.shape[-1] > 1
        else None,
    )
