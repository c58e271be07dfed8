"""What a reader wants to see of a comparison beside its numbers: how errors are spread, and the worst masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from samdec_export.core.masks import pack_mask
from samdec_export.core.results import Histogram, MaskPair
from samdec_export.core.runner import Array
from samdec_export.parity.metrics import decide

__all__ = ["add_up", "spread", "worst_masks", "worst_of"]

EDGES: Final = tuple(number / 4 for number in range(-40, 13))
"""log10 of the errors between which they are counted: four bins for a power of ten."""

KEPT: Final = 4
"""Masks of a comparison that are kept, the worst first."""


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


def worst_masks(case: str, output: str, reference: Array, candidate: Array, margin: float) -> tuple[MaskPair, ...]:
    """Return the masks of one output that flip most.

    Args:
        case: Its name.
        output: Its name.
        reference: Mask logits that are right.
        candidate: Mask logits to judge.
        margin: How near to the threshold a logit is undecided.
    """
    found = [_pair(case, output, index, reference, candidate, margin) for index in np.ndindex(reference.shape[:-2])]
    return worst_of(pair for pair in found if pair is not None)


def worst_of(pairs: Sequence[MaskPair] | Iterator[MaskPair]) -> tuple[MaskPair, ...]:
    """Return those that are kept of several, the worst first."""
    return tuple(sorted(pairs, key=lambda pair: pair.iou)[:KEPT])


def _pair(
    case: str, output: str, index: tuple[int, ...], reference: Array, candidate: Array, margin: float
) -> MaskPair | None:
    """Return one mask as both have it; None where no pixel flips."""
    inside, guess = decide(reference[index], candidate[index], margin)
    flipped = int(np.count_nonzero(inside != guess))
    if not flipped:
        return None
    *image, prompt, mask = index
    return MaskPair(
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
