"""Pictures of overlapping shapes, each drawn from a seed, and the prompts that a person would give on them.

S is the side of a picture in pixels, K the number of its objects. Coordinates are x, y in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIDE", "Picture", "Prompt", "box", "click", "clicks", "correction", "draw"]

Array: TypeAlias = NDArray[Any]

SIDE: Final = 256
"""Pixels along one side of a picture."""

SMALLEST: Final = 0.01
"""The part of a picture that an object must show to count as one."""

DISTINCT: Final = 0.35
"""How far apart the colours of a picture's objects are, where that can be had; black and white are 1.7 apart."""

BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = 0, 1, 2, 3
"""Labels of points, as the prompt encoder takes them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An RGB picture (S, S, 3), float32 from 0 to 1, and the visible part of each object: bool (K, S, S)."""

    pixels: Array
    objects: Array


@dataclass(frozen=True, slots=True)
class Prompt:
    """Points (N, 2) in pixels and their labels (N,); a box is two points."""

    points: Array
    labels: Array

    def __add__(self, other: Prompt) -> Prompt:
        return Prompt(np.concatenate([self.points, other.points]), np.concatenate([self.labels, other.labels]))


def draw(rng: np.random.Generator, side: int = SIDE) -> Picture:
    """A picture with three to six shapes, later ones over earlier ones, on a patterned background."""
    y, x = np.mgrid[:side, :side].astype(np.float32) + 0.5  # (S, S) each
    used = [_colour(rng, [], vivid=0.4)]
    pixels = _surface(rng, x, y, side, used[0])  # (S, S, 3)
    owner = np.zeros((side, side), np.uint8)
    count = int(rng.integers(3, 7))
    for number in range(1, count + 1):
        radius = rng.uniform(0.1, 0.25) * side
        left, top = (int(rng.uniform(0.02, 0.98) * (side - 2 * radius)) for _ in range(2))
        window = slice(top, top + int(2 * radius)), slice(left, left + int(2 * radius))
        at = x[window], y[window]
        depth = _depth(rng, at[0] - left - radius, at[1] - top - radius, radius)
        cover = np.clip(depth + 0.5, 0, 1)[..., None]  # anti-aliased edge
        used.append(_colour(rng, used, vivid=0.9))
        pixels[window] = cover * _surface(rng, *at, side, used[-1]) + (1 - cover) * pixels[window]
        owner[window][depth > 0] = number
    pixels += np.float32(rng.uniform(0.01, 0.06)) * rng.standard_normal(pixels.shape, np.float32)
    objects = owner == np.arange(1, count + 1)[:, None, None]  # (K, S, S)
    shown = objects.mean((1, 2)) > SMALLEST
    return Picture(np.clip(pixels, 0, 1).astype(np.float32), objects[shown]) if shown.any() else draw(rng, side)


def click(rng: np.random.Generator, target: Array) -> Prompt:
    """A click inside of `target` (S, S), away from its edge."""
    return _at(rng, _core(target), FOREGROUND)


def clicks(rng: np.random.Generator, target: Array) -> Prompt:
    """A click inside, and one outside but near."""
    top, bottom, left, right = _extent(target)
    near = np.zeros_like(target)
    reach = (bottom - top + right - left) // 6
    near[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = True
    return click(rng, target) + _at(rng, near & ~target, BACKGROUND)


def box(rng: np.random.Generator, target: Array, slack: float = 0.05) -> Prompt:
    """A box around `target`, each side off by up to `slack` of the box's size."""
    top, bottom, left, right = _extent(target)
    size = np.array([right - left, bottom - top], np.float32)
    corners = np.array([[left, top], [right, bottom]], np.float32)
    corners += rng.uniform(-slack, slack, (2, 2)).astype(np.float32) * size
    return Prompt(np.clip(corners, 0, len(target) - 1), np.array([TOP_LEFT, BOTTOM_RIGHT]))


def correction(rng: np.random.Generator, target: Array, found: Array) -> Prompt:
    """A click in the middle of the larger mistake: on what was missed, or on what is too much."""
    missed, extra = target & ~found, found & ~target
    if missed.sum() >= extra.sum():
        return _at(rng, _core(missed) if missed.any() else _core(target), FOREGROUND)
    return _at(rng, _core(extra), BACKGROUND)


def _at(rng: np.random.Generator, where: Array, label: int) -> Prompt:
    """A random pixel of those that are set."""
    pixel = rng.choice(np.flatnonzero(where))
    point = np.array([[pixel % where.shape[1], pixel // where.shape[1]]], np.float32)
    return Prompt(point, np.array([label]))


def _core(mask: Array) -> Array:
    """The pixels at least half as far from the edge as the farthest one."""
    layers = [mask]
    while layers[-1].any():
        padded = np.pad(layers[-1], 1)
        layers.append(padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    return layers[(len(layers) - 1) // 2]


def _extent(mask: Array) -> tuple[int, int, int, int]:
    """First and last row and column."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def _colour(rng: np.random.Generator, used: Sequence[Array], vivid: float) -> Array:
    """An RGB colour that the eye tells from those used, as far as eight tries give one."""
    tries = rng.uniform(0.5 - vivid / 2, 0.5 + vivid / 2, (8, 3)).astype(np.float32)
    apart = [min((float(np.linalg.norm(colour - other)) for other in used), default=1.0) for colour in tries]
    chosen: Array = tries[np.minimum(apart, DISTINCT).argmax()]
    return chosen


def _surface(rng: np.random.Generator, x: Array, y: Array, side: int, first: Array) -> Array:
    """A colour that changes along one direction, with stripes over it at times: (..., 3)."""
    second = np.clip(first + rng.uniform(-0.15, 0.15, 3), 0, 1).astype(np.float32)
    angle, stripe = rng.uniform(0, 2 * np.pi, 2)
    along = (np.cos(angle) * x + np.sin(angle) * y) / side
    blend = 0.5 + 0.5 * np.clip(2 * along - 0.5, -1, 1)
    colour: Array = first + blend[..., None] * (second - first)
    if rng.random() < 0.5:
        waves = np.sin((np.cos(stripe) * x + np.sin(stripe) * y) * rng.uniform(0.4, 1.2))
        colour += np.float32(rng.uniform(0.03, 0.1)) * waves[..., None]
    return colour.astype(np.float32)


def _depth(rng: np.random.Generator, x: Array, y: Array, radius: float) -> Array:
    """How far inside of a random outline each position is, in about pixels; negative outside."""
    distance = np.hypot(x, y)
    angle = np.arctan2(y, x) + np.float32(rng.uniform(0, 2 * np.pi))
    outline = OUTLINES[int(rng.integers(len(OUTLINES)))](rng, angle)
    depth: Array = np.float32(radius) * outline.astype(np.float32) - distance
    if rng.random() < 0.12:  # a ring
        depth = np.minimum(depth, distance - np.float32(radius * rng.uniform(0.3, 0.45)))
    return depth


def _ellipse(rng: np.random.Generator, angle: Array) -> Array:
    flat = rng.uniform(0.55, 1)
    outline: Array = flat / np.hypot(flat * np.cos(angle), np.sin(angle))
    return outline


def _rectangle(rng: np.random.Generator, angle: Array) -> Array:
    flat = rng.uniform(0.4, 0.7)
    outline: Array = np.minimum(0.7 / np.abs(np.cos(angle)).clip(1e-3), flat / np.abs(np.sin(angle)).clip(1e-3))
    return outline


def _polygon(rng: np.random.Generator, angle: Array) -> Array:
    part = np.pi / int(rng.integers(3, 7))
    outline: Array = np.cos(part) / np.cos(angle % (2 * part) - part)
    return outline


def _star(rng: np.random.Generator, angle: Array) -> Array:
    outline: Array = 0.75 + 0.25 * np.cos(int(rng.integers(4, 7)) * angle)
    return outline


def _blob(rng: np.random.Generator, angle: Array) -> Array:
    waves = [rng.uniform(0, 0.2) / k * np.cos(k * angle + rng.uniform(0, 7)) for k in (2, 3, 4)]
    outline: Array = (0.8 + np.sum(waves, axis=0)).clip(0.3, 1)
    return outline


OUTLINES: Final[tuple[Callable[[np.random.Generator, Array], Array], ...]] = (
    _ellipse,
    _rectangle,
    _polygon,
    _star,
    _blob,
)
"""Distance of the outline from the middle at each angle, the largest about 1."""
