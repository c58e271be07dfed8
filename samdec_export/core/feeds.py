"""Inputs of a graph: of a case, of a recording, kept and held against what a graph takes."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from samdec_export.core.drawing import Case, draw
from samdec_export.core.runner import Array, Feeds
from samdec_export.core.signature import Dim, Signature

__all__ = [
    "FeedsCache",
    "Inputs",
    "NamedFeeds",
    "arrays_sha256",
    "example_sizes",
    "make_feeds",
    "misfits",
    "sizes_of",
    "typed_feeds",
    "undeclared",
]

KEPT_BYTES = 256 << 20
"""About what a sweep of a full-size decoder with few prompts takes."""

FEW = 2
"""Slices of a small case, for each one that there must be."""


@dataclass(frozen=True, slots=True)
class NamedFeeds:
    """Inputs of one case: its sizes are known, its arrays are made when asked for, not all of a sweep at once.

    `origin` is what the arrays follow from, where making them takes time; None where they lie ready. What takes long is
    done on cases that are `small`: more slices of the same kind tell it nothing new. A range is measured on `usual`
    ones: others have values that no encoder gives.
    """

    name: str
    sizes: Mapping[str, int]
    make: Callable[[], Feeds]
    origin: Hashable = None
    small: bool = True
    usual: bool = True

    @classmethod
    def of(cls, signature: Signature, case: Case, seed: int = 0) -> NamedFeeds:
        """Return the inputs of a case, which follow from its name and the seed."""
        origin = (signature.inputs, case.name, seed)
        axes = [dim for dim in signature.dims if dim.independent]
        small = math.prod(case.sizes[dim.name] for dim in axes) <= FEW * math.prod(dim.min for dim in axes)
        usual = small and case.values == "normal" and case.mask_input != "unread"
        return cls(case.name, case.sizes, partial(make_feeds, signature, case, seed), origin, small, usual)


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
    return Inputs({spec.name: draw(signature, spec, case, seed) for spec in signature.inputs})


def typed_feeds(case: NamedFeeds, signature: Signature) -> NamedFeeds:
    """Return the same inputs in the types of another signature of the same graph."""

    def make() -> Feeds:
        feeds = case.make()
        return {spec.name: feeds[spec.name].astype(spec.dtype, copy=False) for spec in signature.inputs}

    return replace(case, make=make, origin=None)


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


def arrays_sha256(feeds: Feeds) -> str:
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
