"""What a sweep asks: every size that a range allows, every meaning of a prompt, every kind of value.

A graph can be wrong for one size alone, so every size of a short axis is asked, and of a long one those at which
kernels change. It can be wrong for two sizes together: any two of the sizes that matter most meet in some case (a
covering design of strength two, which needs far fewer cases than all combinations).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from samdec_export.core.drawing import MASK_INPUTS, POOL, VALUES, Case, MaskInput
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.options import SweepName
from samdec_export.core.prompts import meanings_of
from samdec_export.core.signature import Dim, Signature

__all__ = ["sweep", "sweep_within", "usual_feeds"]

SHORT: Final = 17
"""Every size is asked up to here, and of an axis that is not longer in all."""

QUICK_SLICES: Final = 8
"""Slices along an independent axis that a case of a quick sweep has at most."""

QUICK_SIZES: Final = (1, 3)
"""Sizes of an independent axis that a quick sweep pairs with others: alone, and among others."""

MEANING_POINTS: Final = 5
"""Points of a prompt that can have every meaning, one more than the longest needs."""

Sizes: TypeAlias = dict[str, int]
Level: TypeAlias = tuple[str, int]


def sweep_within(signatures: Sequence[Signature], width: SweepName) -> list[Case]:
    """Return the cases of a sweep over the ranges of each signature, every case once."""
    return [*{case.name: case for signature in signatures for case in sweep(signature, width)}.values()]


def usual_feeds(signature: Signature, width: SweepName, seed: int) -> list[NamedFeeds]:
    """Return inputs for the cases of a sweep whose values are usual ones: what a range is measured on."""
    return [case for one in sweep(signature, width) if (case := NamedFeeds.of(signature, one, seed)).usual]


def sweep(signature: Signature, width: SweepName = "full") -> list[Case]:
    """Return the cases that a validation runs; those of `quick` are the first of `full`.

    `quick` has few prompts a case: every meaning of a prompt, every kind of value, every size of other axes, and any
    two sizes that matter of two axes. `full` adds the larger sizes of independent axes.
    """
    dims = signature.dims
    sizes = [*_pairs(dims, {dim.name: QUICK_SIZES for dim in dims if dim.independent})]
    sizes += _singles(dims, sizes, QUICK_SLICES)
    cases = [*_in_turn(signature, sizes), *_meanings(signature), *_kinds(signature)]
    if width == "full":
        larger = [*_pairs(dims, {}), *_singles(dims, sizes, None)]
        cases += _in_turn(signature, [one for one in _once(larger) if one not in sizes])
    return [*{case.name: case for case in _with_masks(signature, cases)}.values()]


def levels(dim: Dim) -> list[int]:
    """Return the sizes of an axis that a sweep asks, ascending."""
    everything = range(dim.min, dim.max + 1)
    if len(everything) <= SHORT:
        return [*everything]
    kernels = {2**power + step for power in range(dim.max.bit_length() + 1) for step in (-1, 0, 1)}
    odd = {int(dim.min + part * (dim.max - dim.min)) | 1 for part in (0.25, 0.7)}
    asked = {*range(1, SHORT + 1), *kernels, *odd, *dim.sizes}
    return [size for size in everything if size in asked]


def _pairs(dims: Sequence[Dim], instead: Mapping[str, Sequence[int]]) -> Iterator[Sizes]:
    """Yield cases in which any two sizes that matter of two axes meet: the greedy covering design.

    Args:
        dims: The axes; an axis at its min, opt and max matters, and so do sizes between on one that is not independent.
        instead: By axis, the sizes that matter in place of those.
    """
    matter = {dim.name: _that_matter(dim, instead.get(dim.name)) for dim in dims}
    names = [*matter]
    missing = {
        ((one, a), (two, b))
        for one, two in itertools.combinations(names, 2)
        for a, b in itertools.product(matter[one], matter[two])
    }
    if len(names) == 1:
        yield from ({names[0]: size} for size in matter[names[0]])
    while missing:
        start = min(missing, key=lambda pair: (math.prod(size for _, size in pair), pair))
        case = dict(start)
        for name in names:
            if name not in case:
                case[name] = max(matter[name], key=lambda size: (_meeting(missing, case, name, size), -size))
        yield {name: case[name] for name in names}
        missing -= {*itertools.combinations(((name, case[name]) for name in names), 2)}


def _that_matter(dim: Dim, instead: Sequence[int] | None) -> list[int]:
    if instead:
        return [size for size in instead if dim.min <= size <= dim.max] or [dim.min]
    between = () if dim.independent else (min(dim.max, (dim.min + (dim.max - dim.min) // 4) | 1),)
    return sorted({*dim.sizes, *between})


def _meeting(missing: set[tuple[Level, Level]], case: Sizes, name: str, size: int) -> int:
    """Count the pairs that are missing and that a case would have with one size more."""
    new = (name, size)
    return sum((old, new) in missing or (new, old) in missing for old in case.items())


def _singles(dims: Sequence[Dim], there: Iterable[Sizes], most: int | None) -> Iterator[Sizes]:
    """Yield cases so that every size of every axis is there, up to `most` along an independent one.

    One independent axis at a time is longer than its min; the others go through the sizes that are missing.
    """
    missing = {
        dim.name: [size for size in levels(dim) if size not in {case[dim.name] for case in there}] for dim in dims
    }
    usual = {dim.name: dim.min if dim.independent else dim.opt for dim in dims}
    for dim in (dim for dim in dims if dim.independent):
        for size in missing[dim.name] if most is None else [size for size in missing[dim.name] if size <= most]:
            yield {**usual, **_next(dims, missing), dim.name: size}
    inner = _inner(dims)
    for few in itertools.cycle((1, 2, 3)):
        if not (rest := _next(dims, missing)):
            return
        yield {**usual, **({inner.name: max(inner.min, min(inner.max, few))} if inner else {}), **rest}


def _next(dims: Sequence[Dim], missing: Mapping[str, list[int]]) -> Sizes:
    """Take the next missing size of each axis that is not independent."""
    return {dim.name: missing[dim.name].pop(0) for dim in dims if not dim.independent and missing[dim.name]}


def _once(points: Iterable[Sizes]) -> list[Sizes]:
    return [*{tuple(sizes.items()): sizes for sizes in points}.values()]


def _in_turn(signature: Signature, points: Iterable[Sizes]) -> Iterator[Case]:
    """Let every case begin with the prompt after the last one of the case before."""
    first = 0
    for sizes in points:
        yield Case(sizes=sizes, first=first)
        first = (first + _prompts(signature, sizes)) % POOL


def _prompts(signature: Signature, sizes: Sizes) -> int:
    """Return how many prompts an image has."""
    inner = _inner(signature.dims)
    return sizes[inner.name] if inner else 1


def _inner(dims: Sequence[Dim]) -> Dim | None:
    """Return the innermost independent axis: that of the prompts of an image."""
    return next((dim for dim in reversed(dims) if dim.independent), None)


def _meanings(signature: Signature) -> Iterator[Case]:
    """Yield cases that ask every meaning that a prompt can have, if prompts are points."""
    axis = next((spec.shape[-1] for spec in signature.inputs if spec.content == "labels"), 0)
    points = min(MEANING_POINTS, axis.max) if isinstance(axis, Dim) else 0
    if not isinstance(axis, Dim) or points < axis.min:
        return
    inner = _inner(signature.dims)
    count = max(inner.min, min(inner.max, QUICK_SLICES)) if inner else 1
    sizes = {dim.name: dim.min if dim.independent else dim.opt for dim in signature.dims}
    sizes |= {axis.name: points} | ({inner.name: count} if inner else {})
    for first in range(0, len(meanings_of(points)), count):
        yield Case(sizes=sizes, first=first)


def _kinds(signature: Signature) -> Iterator[Case]:
    """Yield a small case for every kind of value."""
    sizes = {dim.name: max(dim.min, min(dim.max, 2)) if dim.independent else dim.opt for dim in signature.dims}
    for number, values in enumerate(VALUES[1:]):
        yield Case(sizes=sizes, first=2 * number, values=values)


def _with_masks(signature: Signature, cases: Sequence[Case]) -> Iterator[Case]:
    """Let cases go round over what masks they bring, and the first one have all of it."""
    flags = [spec for spec in signature.inputs if spec.content == "flag"]
    if not flags:
        yield from cases
        return
    one_for_all = any(spec.shape == (1,) for spec in flags)
    modes: list[MaskInput] = [mode for mode in MASK_INPUTS if not (one_for_all and mode == "mixed")]
    for mode in modes:
        yield replace(cases[0], mask_input=mode)
    for case, mode in zip(cases[1:], itertools.cycle(modes), strict=False):
        yield replace(case, mask_input=mode)
