"""Values of inputs, drawn slice by slice.

Along an independent axis every slice is drawn by itself and by its own number, out of POOL for each length of the other
axes. So two cases share slices, and a reference that knows one of them (`parity.slices`) need not compute it again.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from samdec_export.core.prompts import draw_prompt
from samdec_export.core.runner import Array
from samdec_export.core.signature import Content, Signature, TensorSpec, axis_size

__all__ = ["MASK_INPUTS", "POOL", "VALUES", "Case", "MaskInput", "Values", "draw", "slice_numbers"]

MaskInput: TypeAlias = Literal["off", "on", "mixed", "between", "unread"]
"""Which prompts bring a mask: none, all, every other one; flags neither 0 nor 1; none, and NaN lies in its place."""

Values: TypeAlias = Literal["normal", "spikes", "offset", "constant", "zero", "tiny"]
"""How embeddings are distributed; see `_embedding`."""

MASK_INPUTS: Final[tuple[MaskInput, ...]] = get_args(MaskInput)
VALUES: Final[tuple[Values, ...]] = get_args(Values)

POOL: Final = 29
"""Different slices of an independent axis; a prime, so that every stride in `slice_numbers` visits all of them."""

BLOCK = 1 << 16
"""Numbers that are drawn at once: as float64 they stay in the cache."""

KEPT_SLICES = POOL + 3
"""Slices that are kept: 4 MB each of a full-size decoder."""

OFFSET, SPIKE, SPIKE_EVERY = 3.0, 60.0, 500
"""Of embeddings with a mean, and with one value in so many that is up to so many times larger."""

MASK_KINDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of inputs: a size for every dynamic axis, and what the values are like.

    The values follow from `name` and the seed alone, so a case can be replayed by name.

    Args:
        sizes: The length of every dynamic axis.
        first: The number of the first slice along an independent axis: which prompts the case asks.
        values: How embeddings are distributed.
        mask_input: Which prompts bring a mask; None where the graph takes none.
    """

    sizes: Mapping[str, int]
    first: int = 0
    values: Values = "normal"
    mask_input: MaskInput | None = None

    @property
    def name(self) -> str:
        """Return what reports call it, such as `batch=64,points=2,first=5,values=spikes,mask=mixed`."""
        parts = [f"{axis}={size}" for axis, size in self.sizes.items()]
        if self.first:
            parts.append(f"first={self.first}")
        if self.values != "normal":
            parts.append(f"values={self.values}")
        if self.mask_input:
            parts.append(f"mask={self.mask_input}")
        return ",".join(parts) or "fixed"


def slice_numbers(first: int, count: int) -> Iterator[int]:
    """Yield the numbers of the slices of a case, each below POOL.

    Every lap over the pool goes with another stride, so that no distance between two slices always means equal ones.
    """
    for place in range(count):
        lap, step = divmod(place, POOL)
        yield (first + lap + (1 + lap % (POOL - 1)) * step) % POOL


def draw(signature: Signature, spec: TensorSpec, case: Case, seed: int) -> Array:
    """Draw one input slice by slice; equal numbers have equal slices."""
    independent = [dim for dim in signature.dims if dim.independent]
    axes = [axis for axis in spec.shape if axis in independent]
    lengths = [axis_size(axis, case.sizes) for axis in axes]
    shape, extent = (
        tuple(axis_size(axis, case.sizes) for axis in part) for part in (spec.shape[len(axes) :], spec.extent)
    )
    drawn = np.empty((math.prod(lengths), *shape), spec.dtype)
    by_prompt = axes == independent or spec.content == "flag"  # one flag for all prompts is the first one's
    numbers = _numbers(case.first, lengths) if by_prompt else range(len(drawn))
    for place, number in enumerate(numbers):
        drawn[place] = _slice(_Slice(spec, shape, extent, number, case.values, case.mask_input, seed))
    return drawn.reshape(*lengths, *shape)


def _numbers(first: int, lengths: list[int]) -> Iterator[int]:
    """Yield numbers along all independent axes: the prompts of one image are others than those of the next."""
    *outer, inner = lengths or [1]
    for image in range(math.prod(outer)):
        yield from slice_numbers(first + 7 * image, inner)


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one slice of an input follows from."""

    spec: TensorSpec
    shape: tuple[int, ...]
    extent: tuple[int, ...]
    number: int
    values: Values
    mask_input: MaskInput | None
    seed: int

    def rng(self, name: str) -> np.random.Generator:
        """Return what chance follows from; tensors that ask by one name belong together."""
        return np.random.default_rng([self.seed, self.number, zlib.crc32(name.encode())])


@lru_cache(maxsize=KEPT_SLICES)
def _slice(asked: _Slice) -> Array:
    return _DRAW[asked.spec.content](asked).astype(asked.spec.dtype, copy=False)


def _embedding(asked: _Slice) -> Array:
    """Draw an embedding (..., C, h, w) or (N, C); every other mask embedding is constant over the picture."""
    rng = asked.rng(f"{asked.spec.name} {asked.values}")
    everywhere = len(asked.shape) == 3 and asked.number % 2 == 1
    match "constant" if asked.values == "normal" and everywhere else asked.values:
        case "zero":
            return np.zeros(asked.shape)
        case "constant":  # along all axes but the channels'
            channels = (asked.shape[0], 1, 1) if len(asked.shape) == 3 else (1, asked.shape[-1])
            return np.broadcast_to(rng.standard_normal(channels), asked.shape)
        case "tiny":  # below the smallest normal number of the type
            return _normal(rng, asked, float(np.finfo(asked.spec.dtype).smallest_normal) / 64)
        case "offset":
            return _normal(rng, asked) + OFFSET
        case "spikes":
            drawn = _normal(rng, asked).reshape(-1)
            where = rng.choice(drawn.size, max(1, drawn.size // SPIKE_EVERY), replace=False)
            drawn[where] *= np.exp(rng.uniform(0, np.log(SPIKE), where.size)).astype(drawn.dtype)
            return drawn.reshape(asked.shape)
        case _:
            return _normal(rng, asked)


def _encoding(asked: _Slice) -> Array:
    return np.sin(asked.rng(asked.spec.name).uniform(-np.pi, np.pi, asked.shape))


def _prompt(asked: _Slice, part: int) -> Array:
    """Draw the labels (N,) or the positions (N, 2) of a prompt; the positions bring the extent, for the same draw."""
    points = asked.shape[0]
    return draw_prompt(asked.rng("prompt"), asked.number, points, asked.extent or (1, 1))[part]


def _flag(asked: _Slice) -> Array:
    every_other = float(asked.number % 2)
    flags = {"off": 0.0, "on": 1.0, "between": (0.25, 0.75, 2.0, -1.0)[asked.number % 4], "unread": 0.0}
    return np.full(asked.shape, flags.get(asked.mask_input or "mixed", every_other))


def _logits(asked: _Slice) -> Array:
    """Draw a mask of an earlier round (1, H, W) as clients send it."""
    rng, kind = asked.rng(asked.spec.name), asked.number % MASK_KINDS
    if asked.mask_input == "unread":
        return np.full(asked.shape, np.nan)
    if kind == 0:
        return _normal(rng, asked, 10)
    height, width = asked.shape[-2:]
    y, x = np.arange(height)[:, None] / height, np.arange(width) / width
    blob = 25 * (rng.uniform(0.2, 0.5) - np.hypot(y - rng.uniform(0.2, 0.8), x - rng.uniform(0.2, 0.8)))
    shaped = {1: blob > 0, 2: np.where(blob > 0, 1024.0, -1024.0), 3: np.full_like(blob, -1024.0)}.get(kind, blob)
    return np.broadcast_to(shaped, asked.shape)


_DRAW: Final[Mapping[Content, Callable[[_Slice], Array]]] = {
    "embedding": _embedding,
    "encoding": _encoding,
    "logits": _logits,
    "flag": _flag,
    "labels": partial(_prompt, part=0),
    "coords": partial(_prompt, part=1),
    "image_size": lambda asked: np.array(asked.extent),
}


def _normal(rng: np.random.Generator, asked: _Slice, scale: float = 1.0) -> Array:
    """Draw the same normal numbers as all at once in float64, without the memory that takes."""
    drawn, numbers = np.empty(math.prod(asked.shape), asked.spec.dtype), np.empty(BLOCK)
    for start in range(0, drawn.size, BLOCK):
        part = drawn[start : start + BLOCK]
        part[:] = scale * rng.standard_normal(out=numbers[: part.size])
    return drawn.reshape(asked.shape)
