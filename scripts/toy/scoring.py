"""How well masks fit the objects that were prompted, by kind of prompt, on pictures that training never saw.

B pictures, P prompts of a picture, N points, M masks, S the side of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from toy.pictures import SIDE, Array, Picture, Prompt, box, click, clicks, correction, draw

__all__ = ["HELD_OUT", "KINDS", "Decode", "Score", "enlarge", "held_out", "pack", "score"]

Decode: TypeAlias = Callable[[Array, Array, Array, "Array | None"], "tuple[Array, Array]"]
"""Embeddings (B, C, h, w), points (B, P, N, 2), labels (B, P, N), masks of an earlier round (B, P, 4h, 4w) or None ->
mask logits (B, P, M, 4h, 4w), predicted IoU (B, P, M)."""

HELD_OUT: Final = 1_000_000
"""Seed of the first held-out picture; training draws from seeds below."""

PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Mean IoU at the pictures' resolution: of the mask ranked first, and of the best of the masks offered."""

    ranked: float
    best: float
    prompts: int


def held_out(count: int) -> list[Picture]:
    """The first pictures of the held-out series."""
    return [draw(np.random.default_rng(HELD_OUT + index)) for index in range(count)]


def _box_and_click(rng: np.random.Generator, target: Array) -> Prompt:
    return box(rng, target) + click(rng, target)


KINDS: Final[dict[str, tuple[Callable[[np.random.Generator, Array], Prompt], int]]] = {
    "one click": (click, 0),
    "a click inside, one outside": (clicks, 0),
    "box": (box, 0),
    "box and click": (_box_and_click, 0),
    "click, then 1 correction": (click, 1),
    "click, then 3 corrections": (click, 3),
}
"""Each kind of prompt: what makes it, and how many corrections follow, each with the masks of the round before."""


def score(decode: Decode, pictures: Sequence[Picture], embeddings: Array, kind: str) -> Score:
    """Prompt every object of every picture once."""
    make, rounds = KINDS[kind]
    ranked, best = [], []
    for index, picture in enumerate(pictures):
        rng = np.random.default_rng([HELD_OUT, index])
        embedding = embeddings[index : index + 1]
        prompts = [make(rng, target) for target in picture.objects]
        logits, iou = decode(embedding, *pack(prompts), None)
        for _ in range(rounds):
            chosen = logits[0][np.arange(len(prompts)), iou[0].argmax(-1)]  # (P, 4h, 4w)
            found = enlarge(chosen) > 0
            pairs = zip(prompts, picture.objects, found, strict=True)
            prompts = [prompt + correction(rng, target, mask) for prompt, target, mask in pairs]
            logits, iou = decode(embedding, *pack(prompts), chosen[None])
        overlap = _iou(enlarge(logits[0]) > 0, picture.objects[:, None])  # (P, M)
        ranked += list(overlap[np.arange(len(prompts)), iou[0].argmax(-1)])
        best += list(overlap.max(-1))
    return Score(ranked=float(np.mean(ranked)), best=float(np.mean(best)), prompts=len(best))


def pack(prompts: Sequence[Prompt]) -> tuple[Array, Array]:
    """Points (1, P, N, 2) float32 and labels (1, P, N) int64 of one picture's prompts, padded to one length."""
    longest = max(len(prompt.labels) for prompt in prompts)
    points = np.zeros((1, len(prompts), longest, 2), np.float32)
    labels = np.full((1, len(prompts), longest), PADDING, np.int64)
    for index, prompt in enumerate(prompts):
        points[0, index, : len(prompt.labels)] = prompt.points
        labels[0, index, : len(prompt.labels)] = prompt.labels
    return points, labels


def enlarge(logits: Array, side: int = SIDE) -> Array:
    """Logits (..., s, s) -> (..., S, S), bilinear between pixel centres."""
    small = logits.shape[-1]
    centre = np.clip((np.arange(side) + 0.5) * small / side - 0.5, 0, small - 1)
    weights = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(small))).astype(logits.dtype)  # (S, s)
    large: Array = weights @ logits @ weights.T
    return large


def _iou(found: Array, target: Array) -> Array:
    """Of masks (..., S, S)."""
    overlap: Array = (found & target).sum((-2, -1)) / np.maximum((found | target).sum((-2, -1)), 1)
    return overlap
