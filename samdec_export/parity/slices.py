"""A reference asked slice by slice: along an independent axis no slice sees another one.

So a large case is answered from slices that are computed alone, each once for all cases of a sweep. That also makes an
answer the same whatever other slices and cases are there: in a batch of another size the same products may be summed in
another order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import numpy as np

from samdec_export.core.runner import Array, Feeds, Outputs, Runner
from samdec_export.core.signature import Dim, Signature, TensorSpec

__all__ = ["SliceRunner"]

KEPT_BYTES = 512 << 20
"""Answers that are kept: 0.8 MB for a prompt of a full-size decoder."""


class SliceRunner:
    """Asks another runner for one slice of every independent axis at a time, and remembers its answers.

    Args:
        runner: What answers.
        signature: Which axes are independent.
        room: Bytes of answers to keep; the oldest go first.
    """

    def __init__(self, runner: Runner, signature: Signature, room: int = KEPT_BYTES) -> None:
        self.runner = runner
        self.signature = signature
        self.room = room
        self._kept: OrderedDict[bytes, Outputs] = OrderedDict()

    @property
    def name(self) -> str:
        """Return the name of what answers."""
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name."""
        axes = [dim for dim in self.signature.dims if dim.independent]
        if not axes:
            return self.runner.run(feeds)
        lengths = _lengths(self.signature.inputs, feeds, axes)
        views = _Views(self.signature.inputs, feeds, axes)
        places = list(itertools.product(*(range(length) for length in lengths)))
        parts = [self._answer(views.digest(place), views.at(place)) for place in places]
        return {
            spec.name: _joined(spec, axes, lengths, [part[spec.name] for part in parts])
            for spec in self.signature.outputs
        }

    def _answer(self, digest: bytes, feeds: Feeds) -> Outputs:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        answer = self.runner.run(feeds)
        self._kept[digest] = answer
        self.room -= sum(array.nbytes for array in answer.values())
        while self.room < 0 and len(self._kept) > 1:
            self.room += sum(array.nbytes for array in self._kept.popitem(last=False)[1].values())
        return answer


class _Views:
    """Slices of inputs, by their place along the independent axes, and what tells them apart."""

    def __init__(self, specs: tuple[TensorSpec, ...], feeds: Feeds, axes: list[Dim]) -> None:
        self.feeds = feeds
        self.axes: Mapping[str, list[tuple[int, int]]] = {
            spec.name: [(axis, spec.shape.index(dim)) for axis, dim in enumerate(axes) if dim in spec.shape]
            for spec in specs
        }
        self._digests: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def at(self, place: tuple[int, ...]) -> Feeds:
        """Return the slice at a place, every axis still there."""
        return {name: self._part(name, place) for name in self.axes}

    def _part(self, name: str, place: tuple[int, ...]) -> Array:
        index: list[slice] = [slice(None)] * self.feeds[name].ndim
        for axis, position in self.axes[name]:
            index[position] = slice(place[axis], place[axis] + 1)
        return self.feeds[name][tuple(index)]

    def digest(self, place: tuple[int, ...]) -> bytes:
        """Return what tells the slice at a place from all others."""
        return b"".join(self._digest(name, place) for name in self.axes)

    def _digest(self, name: str, place: tuple[int, ...]) -> bytes:
        key = name, tuple(place[axis] for axis, _ in self.axes[name])
        if key not in self._digests:
            part = np.ascontiguousarray(self._part(name, place))
            digest = hashlib.sha256(f"{part.dtype.str} {part.shape}\n".encode())
            digest.update(part.data)
            self._digests[key] = digest.digest()
        return self._digests[key]


def _lengths(specs: tuple[TensorSpec, ...], feeds: Feeds, axes: list[Dim]) -> list[int]:
    found = {
        axis.name: size
        for spec in specs
        for axis, size in zip(spec.shape, feeds[spec.name].shape, strict=True)
        if isinstance(axis, Dim)
    }
    return [found[dim.name] for dim in axes]


def _joined(spec: TensorSpec, axes: list[Dim], lengths: list[int], parts: list[Array]) -> Array:
    """Put slices that each have every axis together again: those of the last axis first."""
    for dim, length in zip(reversed(axes), reversed(lengths), strict=True):
        position = spec.shape.index(dim)
        parts = [np.concatenate(group, axis=position) for group in _groups(parts, length)]
    return parts[0]


def _groups(parts: list[Array], length: int) -> Iterator[list[Array]]:
    for start in range(0, len(parts), length):
        yield parts[start : start + length]
