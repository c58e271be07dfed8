"""Inputs of a graph, made from its Signature: reproducible from the sizes and a seed."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypeAlias

import numpy as np

from samdec_export.core.runner import Array, Feeds
from samdec_export.core.signature import Dim, Signature, TensorSpec, axis_size

__all__ = [
    "Case",
    "FeedsCache",
    "Inputs",
    "MaskInput",
    "NamedFeeds",
    "example_sizes",
    "inputs_sha256",
    "make_feeds",
    "misfits",
    "sizes_of",
    "typed_feeds",
    "undeclared",
]

MaskInput: TypeAlias = Literal["off", "on", "mixed"]

BLOCK = 1 << 16
"""Numbers that are drawn at once: as float64 they stay in the cache."""

KEPT_BYTES = 256 << 20
"""About what a sweep of a full-size decoder with few prompts takes."""

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of inputs: sizes of all dynamic axes, and whether prompts bring masks; `name` and a seed replay it."""

    sizes: Mapping[str, int]
    mask_input: MaskInput | None = None

    @property
    def name(self) -> str:
        """Return what reports call it, such as `batch=64,points=2,mask=mixed`."""
        parts = [f"{axis}={size}" for axis, size in self.sizes.items()]
        if self.mask_input:
            parts.append(f"mask={self.mask_input}")
        return ",".join(parts) or "fixed"


@dataclass(frozen=True, slots=True)
class NamedFeeds:
    """Inputs of one case: its sizes are known, its arrays are made when asked for, not all of a sweep at once.

    `origin` is what the arrays follow from, where making them takes time; None where they lie ready.
    """

    name: str
    sizes: Mapping[str, int]
    make: Callable[[], Feeds]
    origin: Hashable = None

    @classmethod
    def of(cls, signature: Signature, case: Case, seed: int = 0) -> NamedFeeds:
        """Return the inputs of a case, which follow from its name and the seed."""
        origin = (signature.inputs, case.name, seed)
        return cls(case.name, case.sizes, partial(make_feeds, signature, case, seed), origin)


class Inputs(dict[str, Array]):
    """Inputs by name, hashed once: not to be changed after that."""

    @cached_property
    def sha256(self) -> str:
        """Return what tells the inputs of one case from those of another: names, types, shapes and every bit."""
        digest = hashlib.sha256()
        for name, array in sorted(self.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class FeedsCache:
    """Keeps inputs for several stages that run the same cases, up to so many bytes; what has no room is made again."""

    def __init__(self, room: int = KEPT_BYTES) -> None:
        self.room = room
        self._kept: dict[Hashable, Feeds] = {}

    def keep(self, cases: Iterable[NamedFeeds]) -> list[NamedFeeds]:
        """Return the same cases, which make their inputs once as long as there is room."""
        return [replace(case, make=partial(self._make, case)) if case.origin else case for case in cases]

    def _make(self, case: NamedFeeds) -> Feeds:
        if case.origin in self._kept:
            return self._kept[case.origin]
        feeds = case.make()
        size = sum(array.nbytes for array in feeds.values())
        if size <= self.room:
            self.room -= size
            self._kept[case.origin] = feeds
        return feeds


def example_sizes(signature: Signature) -> dict[str, int]:
    """Return sizes to trace with: distinct and above 1, since torch.export takes equal ones for one and 1 for fixed."""
    sizes: dict[str, int] = {}
    for dim in signature.dims:
        first = dim.min if dim.min > 16 else 2
        sizes[dim.name] = next(size for size in itertools.count(first) if size not in sizes.values())
    return sizes


def make_feeds(signature: Signature, case: Case, seed: int = 0) -> Inputs:
    """Return inputs for one case, reproducible from the seed and the case's name."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    prompts = next((spec for spec in signature.inputs if spec.content == "labels"), None)
    labels = _labels(rng, prompts.concrete(case.sizes)) if prompts else np.zeros(0, np.int64)
    makers: dict[str, Callable[[TensorSpec, tuple[int, ...]], Array]] = {
        "embedding": lambda spec, shape: _normal(rng, shape, spec.dtype),
        "encoding": lambda spec, shape: np.sin(rng.uniform(-np.pi, np.pi, shape)),
        "logits": lambda spec, shape: _normal(rng, shape, spec.dtype, 10),
        "flag": lambda spec, shape: _flags(rng, shape, case.mask_input),
        "labels": lambda spec, shape: labels,
        "coords": lambda spec, shape: _coords(rng, labels, [axis_size(axis, case.sizes) for axis in spec.extent]),
        "image_size": lambda spec, shape: np.array([axis_size(axis, case.sizes) for axis in spec.extent]),
    }
    arrays = ((spec, makers[spec.content](spec, spec.concrete(case.sizes))) for spec in signature.inputs)
    return Inputs({spec.name: array.astype(spec.dtype, copy=False) for spec, array in arrays})


def typed_feeds(case: NamedFeeds, signature: Signature) -> NamedFeeds:
    """Return the same inputs in the types of another signature of the same graph."""

    def make() -> Feeds:
        feeds = case.make()
        return {spec.name: feeds[spec.name].astype(spec.dtype, copy=False) for spec in signature.inputs}

    return NamedFeeds(case.name, case.sizes, make)


def sizes_of(signature: Signature, feeds: Feeds) -> dict[str, int]:
    """Return the size of each dynamic axis in `feeds`; ValueError tells where inputs disagree or do not fit."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        actual = feeds[spec.name].shape
        named = zip(spec.shape, actual, strict=False)
        if spec.content == "image_size":
            named = zip(spec.extent, (int(value) for value in feeds[spec.name]), strict=False)
        for axis, size in named:
            if isinstance(axis, Dim):
                sizes.setdefault(axis.name, size)
            if size < 1:
                raise ValueError(f"{spec.name} has an axis of size {size}")
        if actual != spec.concrete(sizes):
            raise ValueError(f"{spec.name} has shape {actual}, not {spec.concrete(sizes)}")
    return sizes


def inputs_sha256(feeds: Feeds) -> str:
    """Return what tells the inputs of one case from those of another."""
    return feeds.sha256 if isinstance(feeds, Inputs) else Inputs(feeds).sha256


def misfits(signature: Signature, feeds: Feeds) -> list[str]:
    """List what keeps inputs from being those of a graph: names, dtypes, axes; empty where they fit."""
    wanted = {spec.name for spec in signature.inputs}
    problems = [f"input {name} is missing" for name in wanted - feeds.keys()]
    problems += [f"there is no input {name}" for name in feeds.keys() - wanted]
    if problems:
        return sorted(problems)
    fed = [(spec, feeds[spec.name]) for spec in signature.inputs]
    problems = [f"{spec.name} is {array.dtype}, not {spec.dtype}" for spec, array in fed if array.dtype != spec.dtype]
    problems += [
        f"{spec.name} has {array.ndim} axes, not {len(spec.shape)} {spec.labels}"
        for spec, array in fed
        if array.ndim != len(spec.shape)
    ]
    if not problems:
        try:
            sizes_of(signature, feeds)
        except ValueError as error:
            problems = [str(error)]
    return problems


def undeclared(declared: Mapping[str, tuple[str, tuple[str | int, ...]]], feeds: Feeds) -> list[str]:
    """List how feeds differ from what a file declares: by input a dtype in NumPy's name, and axes by name or size."""
    problems = [f"input {name} is missing" for name in declared.keys() - feeds.keys()]
    problems += [f"there is no input {name}" for name in feeds.keys() - declared.keys()]
    if problems:
        return sorted(problems)
    sizes: dict[str, int] = {}
    for name, (dtype, axes) in declared.items():
        array = feeds[name]
        if array.dtype.name != dtype:
            problems.append(f"{name} is {array.dtype}, not {dtype}")
        if array.ndim != len(axes):
            problems.append(f"{name} has {array.ndim} axes, not {len(axes)} {axes}")
            continue
        named = zip(axes, array.shape, strict=True)
        wanted = tuple(sizes.setdefault(axis, size) if isinstance(axis, str) else axis for axis, size in named)
        if wanted != array.shape:
            fault = "has an axis of size 0" if 0 in array.shape else f"has shape {array.shape}, not {wanted}"
            problems.append(f"{name} {fault}")
    return problems


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> Array:
    """Draw the same normal numbers as all at once in float64, without the memory that takes."""
    drawn, numbers = np.empty(int(np.prod(shape)), dtype), np.empty(BLOCK)
    for start in range(0, drawn.size, BLOCK):
        part = drawn[start : start + BLOCK]
        part[:] = scale * rng.standard_normal(out=numbers[: part.size])
    return drawn.reshape(shape)


def _labels(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return labels (..., N): each prompt is points, a box with points, or either with padding behind it."""
    rows: list[list[int]] = []
    for _ in range(int(np.prod(shape[:-1]))):
        real = int(rng.integers(1, shape[-1] + 1))
        row = [int(label) for label in rng.integers(BACKGROUND, FOREGROUND + 1, real)]
        if real >= 2 and rng.random() < 0.5:
            row[:2] = [TOP_LEFT, BOTTOM_RIGHT]
        rows.append(row + [PADDING] * (shape[-1] - real))
    return np.array(rows, dtype=np.int64).reshape(shape)


def _coords(rng: np.random.Generator, labels: Array, extent: Iterable[int]) -> Array:
    """Return positions (..., N, 2) in pixels; a box's corners are in order, padding is at the origin."""
    coords = rng.uniform(0, 1, (*labels.shape, 2)) * np.array(list(extent))
    if labels.shape[-1] >= 2:
        is_box = (labels[..., 0] == TOP_LEFT)[..., None, None]
        coords[..., :2, :] = np.where(is_box, np.sort(coords[..., :2, :], axis=-2), coords[..., :2, :])
    padding: Array = np.where((labels == PADDING)[..., None], 0.0, coords)
    return padding


def _flags(rng: np.random.Generator, shape: tuple[int, ...], mode: MaskInput | None) -> Array:
    mixed = rng.integers(0, 2, shape)
    return {"off": np.zeros(shape), "on": np.ones(shape)}.get(mode or "mixed", mixed)
