"""Two outputs compared: structure, distances accumulated in float64, and how errors are spread. No verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samdec_export.core.masks import pack_mask
from samdec_export.core.results import (
    Histogram,
    Limit,
    MaskMetrics,
    MaskPair,
    Number,
    OutputMetrics,
    TensorMetrics,
    Tilt,
    Violation,
)
from samdec_export.core.runner import Array, Outputs
from samdec_export.core.signature import Content, DType, TensorSpec

__all__ = [
    "add_up",
    "best_mask_agreement",
    "flipped_masks",
    "mask_metrics",
    "measure_outputs",
    "measure_tensor",
    "spread",
    "structure_problems",
    "tensor_metrics",
    "tilt_of",
    "worst_of",
]

MASK_THRESHOLD = 0.0
"""Logits above it are inside the mask, as in segment-anything."""

BLOCK = 1 << 20
"""Elements widened to float64 at once."""

LEAST_SPAN: Final[dict[Content, float]] = {"scores": 1.0}
"""A predicted IoU is a number between 0 and 1; the only one of a case may be near 0 and has no span of its own."""

EDGES: Final = tuple(number / 4 for number in range(-40, 13))
"""log10 of the errors between which they are counted: four bins for a power of ten."""

KEPT: Final = 4
"""Masks of a comparison that are kept, the worst first."""


def structure_problems(
    specs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]], reference: Outputs, candidate: Outputs
) -> Iterator[Violation]:
    """Find what keeps outputs from being compared: names, dtypes, shapes, and numbers that are not finite."""
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


def measure_outputs(
    specs: tuple[TensorSpec, ...], reference: Outputs, candidate: Outputs, limits: Mapping[str, Limit]
) -> tuple[OutputMetrics, ...]:
    """Return every metric of outputs of the right structure; limits say which pixels and scores are undecided."""
    found = []
    for spec in specs:
        right, judged, limit = reference[spec.name], candidate[spec.name], limits[spec.name]
        tensor = measure_tensor(spec, right, judged)
        span = tensor.span or 0.0
        masks = mask_metrics(right, judged, limit.margin * span) if spec.content == "masks" else None
        ranked = spec.content == "scores" and right.shape[-1] > 1
        best = best_mask_agreement(right, judged, limit.relative * span) if ranked else None
        tilt = tilt_of(right, judged, span, picture=spec.content == "masks")
        found.append(OutputMetrics(name=spec.name, tensor=tensor, tilt=tilt, masks=masks, best_mask=best))
    return tuple(found)


def measure_tensor(spec: TensorSpec, reference: Array, candidate: Array) -> TensorMetrics:
    """Return the distances of one output, at the scale that its content has."""
    return tensor_metrics(reference, candidate, least_span=LEAST_SPAN.get(spec.content, 0.0))


def tensor_metrics(reference: Array, candidate: Array, least_span: float = 0.0) -> TensorMetrics:
    """Compare two tensors of one shape, finite and not empty."""
    max_abs, sum_abs, sum_square, dot, ref_square, cand_square = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    flat = reference.reshape(-1), candidate.reshape(-1)
    for start in range(0, reference.size, BLOCK):
        ref, cand = (values[start : start + BLOCK].astype(np.float64) for values in flat)
        error = np.abs(ref - cand)
        max_abs = max(max_abs, float(error.max()))
        sum_abs += float(error.sum())
        sum_square += float(error @ error)
        dot += float(ref @ cand)
        ref_square += float(ref @ ref)
        cand_square += float(cand @ cand)
    low, high = float(reference.min()), float(reference.max())
    span = max(high - low, abs(low), abs(high), least_span)
    rms = math.sqrt(sum_square / reference.size)
    norms = math.sqrt(ref_square * cand_square)
    return TensorMetrics(
        max_abs=_finite(max_abs),
        mean_abs=_finite(sum_abs / reference.size),
        relative=_finite(max_abs / span if span else math.inf if max_abs else 0.0),
        cosine=_finite(dot / norms if norms else float(ref_square == cand_square)),
        psnr=_finite(20 * math.log10(span / rms) if rms and span else math.inf),
        span=_finite(span),
    )


def mask_metrics(reference: Array, candidate: Array, margin: float = 0.0) -> MaskMetrics:
    """Compare mask logits (..., height, width) after thresholding.

    A pixel whose reference logit is within `margin` of the threshold is undecided.
    """
    ious, flips, undecided = [], [], 0
    masks = (logits.reshape(-1, *logits.shape[-2:]) for logits in (reference, candidate))
    for ref, cand in zip(*masks, strict=True):
        inside, guess = _decide(ref, cand, margin)
        union = int(np.count_nonzero(inside | guess))
        ious.append(np.count_nonzero(inside & guess) / union if union else 1.0)
        flips.append(int(np.count_nonzero(inside != guess)))
        undecided += int(np.count_nonzero(np.abs(ref - MASK_THRESHOLD) < margin))
    return MaskMetrics(
        iou_min=min(ious),
        iou_mean=sum(ious) / len(ious),
        flipped=sum(flips) / reference.size,
        flipped_most=max(flips),
        undecided=undecided / reference.size,
    )


def best_mask_agreement(reference: Array, candidate: Array, margin: float = 0.0) -> float:
    """Return the share of prompts whose best-scored mask is the same, from scores (..., M).

    Masks whose reference score is within `margin` of the best are equally good choices.
    """
    chosen = candidate.argmax(axis=-1, keepdims=True)
    score = np.take_along_axis(reference, chosen, axis=-1)[..., 0]
    return float(np.mean(score >= reference.max(axis=-1) - margin))


def tilt_of(reference: Array, candidate: Array, span: float, *, picture: bool) -> Tilt:
    """Return which way errors point, by least squares: what chance cannot do.

    Args:
        reference: Values that are right; the last two axes are a picture's height and width if it is one.
        candidate: Values to judge, of the same shape.
        span: The reference's scale.
        picture: Also fit how far the picture is shifted, in pixels.
    """
    right = reference.astype(np.float64)
    error = candidate - right
    offset = float(error.mean())
    shift = tuple(_slope(np.gradient(right, axis=axis), error) for axis in (-1, -2)) if picture else (0.0, 0.0)
    return Tilt(
        offset=offset / span if span else 0.0,
        scale=_slope(right - right.mean(), error - offset),
        right=-shift[0],
        down=-shift[1],
    )


def _slope(direction: Array, error: Array) -> float:
    """Return how much of a direction is in an error; 0 where there is no direction."""
    length = float(np.vdot(direction, direction))
    return float(np.vdot(direction, error)) / length if length else 0.0


def spread(reference: Array, candidate: Array) -> Histogram:
    """Count the errors of one output between EDGES; what lies outside is in the first or the last bin."""
    error = np.abs(candidate.astype(np.float64) - reference).reshape(-1)
    wrong = error[error > 0]
    counts, _ = np.histogram(np.clip(np.log10(wrong), EDGES[0], EDGES[-1]), EDGES)
    return Histogram(edges=EDGES, counts=tuple(counts.tolist()), exact=error.size - wrong.size)


def add_up(parts: Sequence[Histogram]) -> Histogram:
    """Return one histogram of several over EDGES, without the empty bins at both ends; it has one bin at least."""
    counts = [sum(column) for column in zip(*(part.counts for part in parts), strict=True)]
    filled = [number for number, count in enumerate(counts) if count] or [0]
    first, last = filled[0], filled[-1] + 1
    exact = sum(part.exact for part in parts)
    return Histogram(edges=EDGES[first : last + 1], counts=tuple(counts[first:last]), exact=exact)


def flipped_masks(case: str, output: str, reference: Array, candidate: Array, margin: float) -> Iterator[MaskPair]:
    """Yield the masks of one output that flip a pixel, as both have them; logits within `margin` are undecided."""
    for index in np.ndindex(reference.shape[:-2]):
        inside, guess = _decide(reference[index], candidate[index], margin)
        if flipped := int(np.count_nonzero(inside != guess)):
            *image, prompt, mask = index
            yield MaskPair(
                artifact="",
                case=case,
                output=output,
                image=image[0] if image else 0,
                prompt=prompt,
                mask=mask,
                height=inside.shape[0],
                width=inside.shape[1],
                reference=pack_mask(inside),
                candidate=pack_mask(guess),
                flipped=flipped,
                iou=float(np.count_nonzero(inside & guess) / np.count_nonzero(inside | guess)),
            )


def worst_of(pairs: Iterable[MaskPair]) -> tuple[MaskPair, ...]:
    """Return those that are kept of several, the worst first."""
    return tuple(sorted(pairs, key=lambda pair: pair.iou)[:KEPT])


def _decide(reference: Array, candidate: Array, margin: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels inside each of two masks; where the reference is within `margin` of the threshold, its own."""
    near = np.abs(reference - MASK_THRESHOLD) < margin
    inside = reference > MASK_THRESHOLD
    return inside, np.where(near, inside, candidate > MASK_THRESHOLD)


def _finite(value: float) -> Number:
    return float(value) if math.isfinite(value) else None
