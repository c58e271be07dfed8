"""Every meaning that a prompt's points can have, as clients send them.

Labels are those of segment-anything: 0 background, 1 foreground, 2 and 3 a box's top left and bottom right corner,
-1 padding. Any other label is a position without a kind, in the published models and here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from samdec_export.core.runner import Array

__all__ = ["CLICK", "MEANINGS", "Meaning", "draw_prompt", "meanings_of"]

BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1
CLICK: Final = 99
"""Stands for foreground or background, by chance."""

Place: TypeAlias = Callable[[np.random.Generator, Array, Array, Array], Array]
"""Moves positions (N, 2) inside of a picture, given the labels (N,) and the picture's extent (2,)."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the points of a prompt say together.

    Args:
        name: What documentation calls it.
        fill: The label of every point between `front` and `back`.
        front: Labels of the first points.
        back: Labels of the last points.
        place: Where the points are; None for anywhere inside, with padding at the origin.
        points: The fewest points that can say it; 0 for as many as `front` and `back` have.
    """

    name: str
    fill: int
    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    place: Place | None = None
    points: int = 0

    def fits(self, points: int) -> bool:
        """Return whether so many points can say it."""
        return points >= max(1, self.points, len(self.front) + len(self.back))

    def labels(self, rng: np.random.Generator, points: int) -> Array:
        """Return labels (N,)."""
        between = (self.fill,) * (points - len(self.front) - len(self.back))
        labels = np.array((*self.front, *between, *self.back), np.int64)
        clicks: Array = np.where(labels == CLICK, rng.integers(BACKGROUND, FOREGROUND + 1, points), labels)
        return clicks


def _boxes(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    """Put every top left corner above and left of the corner behind it."""
    placed: Array = coords.copy()
    for first in np.flatnonzero((labels[:-1] == TOP_LEFT) & (labels[1:] == BOTTOM_RIGHT)):
        placed[first : first + 2] = np.sort(coords[first : first + 2], axis=0)
    return placed


def _swapped(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    """Put the top left corner below and right of the other."""
    placed: Array = np.concatenate([np.sort(coords[:2], axis=0)[::-1], coords[2:]])
    return placed


def _beyond(axis: int, low: float, high: float) -> Place:
    """Put every point outside the picture on one side, up to so many times its extent."""

    def place(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
        placed: Array = coords.copy()
        placed[:, axis] = rng.uniform(low, high, len(coords)) * extent[axis]
        return placed

    return place


def _whole(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    placed: Array = np.floor(coords)
    return placed


def _edges(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    """Put points on corners of the picture and of its last pixel."""
    ends = np.stack([np.zeros(2), extent - 1, extent])
    placed: Array = np.stack([ends[rng.integers(0, 3, len(coords)), axis] for axis in (0, 1)], axis=-1)
    return placed


def _together(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    placed: Array = np.broadcast_to(coords[:1], coords.shape).copy()
    return placed


def _padded_anywhere(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    return coords


def _padded_outside(rng: np.random.Generator, coords: Array, labels: Array, extent: Array) -> Array:
    """Put padding at (-10, -10), as Hugging Face's processor does."""
    placed: Array = np.where((labels == PADDING)[:, None], -10.0, coords)
    return placed


BOX: Final = (TOP_LEFT, BOTTOM_RIGHT)

MEANINGS: Final[tuple[Meaning, ...]] = (
    Meaning("clicks", CLICK),
    Meaning("a click and padding", PADDING, (FOREGROUND,)),
    Meaning("a box", PADDING, BOX, place=_boxes),
    Meaning("background alone", BACKGROUND),
    Meaning("a box before its clicks", CLICK, BOX, place=_boxes, points=3),
    Meaning("a box after its clicks", CLICK, back=BOX, place=_boxes, points=3),
    Meaning("padding alone", PADDING),
    Meaning("padding alone, anywhere", PADDING, place=_padded_anywhere),
    Meaning("left of the picture", CLICK, place=_beyond(0, -0.5, -0.001)),
    Meaning("right of the picture", CLICK, place=_beyond(0, 1.001, 1.5)),
    Meaning("above the picture", CLICK, place=_beyond(1, -0.5, -0.001)),
    Meaning("below the picture", CLICK, place=_beyond(1, 1.001, 1.5)),
    Meaning("whole pixels", CLICK, place=_whole),
    Meaning("edges of the picture", CLICK, place=_edges),
    Meaning("a lone top left corner", PADDING, (TOP_LEFT,)),
    Meaning("a lone bottom right corner", CLICK, (BOTTOM_RIGHT,)),
    Meaning("a label of a second box's corner", PADDING, (4,)),
    Meaning("a label beyond the list", CLICK, (7,)),
    Meaning("a label below padding", CLICK, (-2,)),
    Meaning("Hugging Face's padding label", CLICK, back=(-10,), place=_padded_outside),
    Meaning("corners swapped", PADDING, BOX, place=_swapped),
    Meaning("labels of a box swapped", PADDING, (BOTTOM_RIGHT, TOP_LEFT)),
    Meaning("padding in front", CLICK, (PADDING,), points=2),
    Meaning("padding with coordinates", PADDING, (FOREGROUND,), place=_padded_anywhere, points=2),
    Meaning("padding at -10", PADDING, (FOREGROUND,), place=_padded_outside, points=2),
    Meaning("one place twice", CLICK, place=_together, points=2),
    Meaning("padding in the middle", PADDING, (FOREGROUND,), (CLICK,), points=3),
    Meaning("two boxes", CLICK, (*BOX, *BOX), place=_boxes),
    Meaning("a box outside of the picture", PADDING, BOX, place=_beyond(0, 1.001, 1.5)),
)


def meanings_of(points: int) -> tuple[Meaning, ...]:
    """Return what so many points can say."""
    return tuple(meaning for meaning in MEANINGS if meaning.fits(points))


def draw_prompt(rng: np.random.Generator, number: int, points: int, extent: tuple[int, ...]) -> tuple[Array, Array]:
    """Return labels (N,) and positions (N, 2) in pixels of one prompt.

    Args:
        rng: What chance follows from.
        number: Which prompt: as many in a row as there are meanings have each of them.
        points: Points N.
        extent: Width and height of the picture.
    """
    known = meanings_of(points)
    meaning = known[number % len(known)]
    labels = meaning.labels(rng, points)
    size = np.array(extent, np.float64)
    coords = rng.uniform(0, 1, (points, 2)) * size
    if meaning.place:
        coords = meaning.place(rng, coords, labels, size)
    elsewhere = meaning.place in (_padded_anywhere, _padded_outside)
    return labels, coords if elsewhere else np.where((labels == PADDING)[:, None], 0.0, coords)
