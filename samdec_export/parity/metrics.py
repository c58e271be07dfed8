"""Distances between two outputs: pure NumPy, accumulated in float64. Numbers only, no verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdec_export.core.results import MaskMetrics, Number, TensorMetrics, Tilt
from samdec_export.core.runner import Array

__all__ = ["best_mask_agreement", "decide", "mask_metrics", "tensor_metrics", "tilt_of"]

MASK_THRESHOLD = 0.0
"""Logits above it are inside the mask, as in segment-anything."""

BLOCK = 1 << 20
"""Elements widened to float64 at once."""


def tensor_metrics(reference: Array, candidate: Array, least_span: float = 0.0) -> TensorMetrics:
    """Compare two tensors of one shape, finite and not empty."""
    max_abs, sum_abs, sum_square, dot, ref_square, cand_square = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for ref, cand in _blocks(reference, candidate):
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

    Args:
        reference: The logits that are right.
        candidate: The logits to judge, of the same shape.
        margin: A pixel whose reference logit is nearer than this to the threshold is undecided.
    """
    ious, flips, undecided = [], [], 0
    for ref, cand in zip(_masks(reference), _masks(candidate), strict=True):
        inside, guess = decide(ref, cand, margin)
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


def decide(reference: Array, candidate: Array, margin: float = 0.0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels inside each of two masks; where the reference is within `margin` of the threshold, its own."""
    near = np.abs(reference - MASK_THRESHOLD) < margin
    inside = reference > MASK_THRESHOLD
    return inside, np.where(near, inside, candidate > MASK_THRESHOLD)


def best_mask_agreement(reference: Array, candidate: Array, margin: float = 0.0) -> float:
    """Return the share of prompts whose best-scored mask is the same.

    Args:
        reference: Scores (..., M).
        candidate: Scores to judge, of the same shape.
        margin: Masks whose reference score is this near to the best are equally good choices.
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


def _finite(value: float) -> Number:
    return float(value) if math.isfinite(value) else None


def _blocks(reference: Array, candidate: Array) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    flat_reference, flat_candidate = reference.reshape(-1), candidate.reshape(-1)
    for start in range(0, flat_reference.size, BLOCK):
        window = slice(start, start + BLOCK)
        yield flat_reference[window].astype(np.float64), flat_candidate[window].astype(np.float64)


def _masks(logits: Array) -> Array:
    return logits.reshape(-1, *logits.shape[-2:])
