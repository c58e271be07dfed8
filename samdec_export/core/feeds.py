"""Inputs made from a Signature: seeded sweeps over its ranges, and recorded files."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from samdec_export.core.errors import UsageError
from samdec_export.core.options import SweepName
from samdec_export.core.runner import Array, Feeds
from samdec_export.core.signature import Dim, Signature, TensorSpec, axis_size

__all__ = [
    "Case",
    "NamedFeeds",
    "example_sizes",
    "inputs_sha256",
    "make_feeds",
    "only_case",
    "outside_ranges",
    "read_feeds",
    "sizes_of",
    "sweep",
    "sweep_feeds",
    "typed_feeds",
]

MaskInput: TypeAlias = Literal["off", "on", "mixed"]

QUICK_SIZES = (1, 3)
"""What a quick sweep takes of an independent axis: alone, and among others. Slices do not see each other there."""

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of inputs: a size for every dynamic axis, and whether prompts bring masks.

    The values follow from `name` and the seed alone, so a case can be replayed by name.
    """

    sizes: Mapping[str, int]
    mask_input: MaskInput | None = None

    @property
    def name(self) -> str:
        """Such as `batch=64,points=2,mask=mixed`."""
        parts = [f"{axis}={size}" for axis, size in self.sizes.items()]
        if self.mask_input:
            parts.append(f"mask={self.mask_input}")
        return ",".join(parts) or "fixed"


@dataclass(frozen=True, slots=True)
class NamedFeeds:
    """Inputs of one case, made when they are needed: a sweep's inputs need not be in memory at once."""

    name: str
    make: Callable[[], Feeds]


def sweep_feeds(signature: Signature, width: SweepName, seed: int) -> list[NamedFeeds]:
    """Inputs for every case of a sweep."""
    return [NamedFeeds(case.name, partial(make_feeds, signature, case, seed)) for case in sweep(signature, width)]


def sweep(signature: Signature, width: SweepName = "full") -> list[Case]:
    """The cases that a validation runs: every corner of the ranges, and odd sizes between.

    A corner takes each axis at its min, opt or max. `quick` takes independent axes at 1 and 3 instead, which needs
    little memory, and leaves out corners where more than two other axes are away from their opt. Where the graph takes
    masks, cases go round off, on and mixed, and the opt corner has all three.
    """
    dims = signature.dims
    flags = [spec for spec in signature.inputs if spec.content == "flag"]
    corners: Iterable[tuple[int, ...]] = itertools.product(*(_corner_sizes(dim, width) for dim in dims))
    if width == "quick":
        corners = (sizes for sizes in corners if _is_near(dims, sizes))
    points = [*corners, *(tuple(_between(dim, part, width) for dim in dims) for part in (0.25, 0.7))]
    names = [dim.name for dim in dims]
    every = [dict(zip(names, sizes, strict=True)) for sizes in dict.fromkeys(points)]
    if not flags:
        return [Case(sizes=sizes) for sizes in every]
    masks: tuple[MaskInput, ...] = (
        ("off", "on", "mixed") if any(spec.shape != (1,) for spec in flags) else ("off", "on")
    )
    opt = {dim.name: _limit(dim, dim.opt, width) for dim in dims}
    cycled = [Case(sizes=sizes, mask_input=mask) for sizes, mask in zip(every, itertools.cycle(masks), strict=False)]
    return list({case.name: case for case in (*cycled, *(Case(sizes=opt, mask_input=mask) for mask in masks))}.values())


def example_sizes(signature: Signature) -> dict[str, int]:
    """Sizes to trace with: distinct and above 1, since torch.export takes equal ones for one axis and 1 for fixed."""
    sizes: dict[str, int] = {}
    for dim in signature.dims:
        first = dim.min if dim.min > 16 else 2
        sizes[dim.name] = next(size for size in itertools.count(first) if size not in sizes.values())
    return sizes


def make_feeds(signature: Signature, case: Case, seed: int = 0) -> dict[str, Array]:
    """Inputs for one case, reproducible from the seed and the case's name."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    prompts = next((spec for spec in signature.inputs if spec.content == "labels"), None)
    labels = _labels(rng, prompts.concrete(case.sizes)) if prompts else np.zeros(0, np.int64)
    makers: dict[str, Callable[[TensorSpec, tuple[int, ...]], Array]] = {
        "embedding": lambda spec, shape: rng.standard_normal(shape),
        "encoding": lambda spec, shape: np.sin(rng.uniform(-np.pi, np.pi, shape)),
        "logits": lambda spec, shape: 10 * rng.standard_normal(shape),
        "flag": lambda spec, shape: _flags(rng, shape, case.mask_input),
        "labels": lambda spec, shape: labels,
        "coords": lambda spec, shape: _coords(rng, labels, [axis_size(axis, case.sizes) for axis in spec.extent]),
        "image_size": lambda spec, shape: np.array([axis_size(axis, case.sizes) for axis in spec.extent]),
    }
    return {
        spec.name: makers[spec.content](spec, spec.concrete(case.sizes)).astype(spec.dtype) for spec in signature.inputs
    }


def read_feeds(path: Path, signature: Signature) -> list[NamedFeeds]:
    """Recorded inputs.

    Args:
        path: An `.npz` file whose keys are input names, or `<case>/<input name>` for several cases. Or what Polygraphy
            saves, a `.json` file or a folder of them: its cases are named `iteration 0` and so on.
        signature: What the graph takes.

    Raises:
        UsageError: The file cannot be read, or an input is missing, unknown, or of another dtype or shape.
    """
    if not path.is_file() and not (path.is_dir() and any(path.glob("*.json"))):
        raise UsageError(f"{path} does not exist, or is not a file.", "Check the path given with --feeds.")
    if path.suffix == ".json" or path.is_dir():
        from samdec_export.parity.polygraphy import read_inputs

        cases = {f"iteration {number}": feeds for number, feeds in enumerate(read_inputs(path))}
    else:
        cases = _read_npz(path)
    if not cases:
        raise UsageError(f"{path} holds no arrays.", "Make it with numpy.savez(path, **inputs).")
    for case, feeds in cases.items():
        if problems := _misfits(signature, feeds):
            raise UsageError(f"{path}, case {case}: {'; '.join(problems)}.", "samdec-export inspect shows the inputs.")
    return [NamedFeeds(case, partial(dict, feeds)) for case, feeds in cases.items()]


def _read_npz(path: Path) -> dict[str, dict[str, Array]]:
    """Arrays by case and input name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (
        Exception
    ) as error:  # numpy and zipfile raise a dozen types on damaged input, EOFError and MemoryError among them
        raise UsageError(
            f"{path} is not an .npz file of arrays, or is damaged.", "Make one with numpy.savez."
        ) from error
    cases: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        case, _, name = key.rpartition("/")
        cases.setdefault(case or path.stem, {})[name] = array
    return cases


def typed_feeds(case: NamedFeeds, signature: Signature) -> NamedFeeds:
    """The same inputs in the types of another signature of the same graph."""

    def make() -> Feeds:
        feeds = case.make()
        return {spec.name: feeds[spec.name].astype(spec.dtype, copy=False) for spec in signature.inputs}

    return NamedFeeds(case.name, make)


def only_case(cases: list[NamedFeeds], name: str) -> list[NamedFeeds]:
    """The case of that name.

    Raises:
        UsageError: There is none.
    """
    chosen = [case for case in cases if case.name == name]
    if not chosen:
        shown = ", ".join(case.name for case in cases[:4])
        raise UsageError(f"There is no case {name!r} among {len(cases)}.", f"They are named like {shown}.")
    return chosen


def sizes_of(signature: Signature, feeds: Feeds) -> dict[str, int]:
    """The size of each dynamic axis in `feeds`.

    Raises:
        ValueError: Two inputs disagree about an axis, or a fixed axis has another size; the message tells which.
    """
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
    """What tells the inputs of one case from those of another: names, types, shapes and every bit."""
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def outside_ranges(signature: Signature, cases: Iterable[NamedFeeds]) -> list[str]:
    """The cases with an axis shorter or longer than its range, such as `clicks (points 40, not 1 to 16)`."""
    found = []
    for case in cases:
        sizes = sizes_of(signature, case.make())
        beyond = [dim for dim in signature.dims if not dim.min <= sizes[dim.name] <= dim.max]
        if beyond:
            axes = ", ".join(f"{dim.name} {sizes[dim.name]}, not {dim.min} to {dim.max}" for dim in beyond)
            found.append(f"{case.name} ({axes})")
    return found


def _misfits(signature: Signature, feeds: Feeds) -> list[str]:
    wanted = {spec.name: spec for spec in signature.inputs}
    problems = [f"input {name} is missing" for name in wanted.keys() - feeds.keys()]
    problems += [f"there is no input {name}" for name in feeds.keys() - wanted.keys()]
    if problems:
        return sorted(problems)
    problems = [
        f"{name} is {feeds[name].dtype}, not {spec.dtype}"
        for name, spec in wanted.items()
        if feeds[name].dtype != spec.dtype
    ]
    problems += [
        f"{name} has {feeds[name].ndim} axes, not {len(spec.shape)} {spec.labels}"
        for name, spec in wanted.items()
        if feeds[name].ndim != len(spec.shape)
    ]
    if not problems:
        try:
            sizes_of(signature, feeds)
        except ValueError as error:
            problems = [str(error)]
    return problems


def _is_near(dims: tuple[Dim, ...], sizes: tuple[int, ...]) -> bool:
    """At most two axes are away from their opt, or all are at their min or all at their max."""
    ranged = [(dim, size) for dim, size in zip(dims, sizes, strict=True) if not dim.independent]
    extreme = any(all(size == getattr(dim, end) for dim, size in ranged) for end in ("min", "max"))
    return extreme or sum(size != dim.opt for dim, size in ranged) <= 2


def _corner_sizes(dim: Dim, width: SweepName) -> tuple[int, ...]:
    if width == "quick" and dim.independent:
        return tuple(size for size in QUICK_SIZES if dim.min <= size <= dim.max) or (dim.min,)
    return dim.sizes


def _between(dim: Dim, part: float, width: SweepName) -> int:
    """An odd size at `part` of the range, inside it."""
    top = _limit(dim, dim.max, width)
    return min(top, int(dim.min + part * (top - dim.min)) | 1)


def _limit(dim: Dim, size: int, width: SweepName) -> int:
    """A quick sweep takes few slices of an independent axis."""
    return max(dim.min, min(size, QUICK_SIZES[-1])) if width == "quick" and dim.independent else size


def _labels(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Labels (..., N): each prompt is points, a box with points, or either with padding behind it."""
    rows: list[list[int]] = []
    for _ in range(int(np.prod(shape[:-1]))):
        real = int(rng.integers(1, shape[-1] + 1))
        row = [int(label) for label in rng.integers(BACKGROUND, FOREGROUND + 1, real)]
        if real >= 2 and rng.random() < 0.5:
            row[:2] = [TOP_LEFT, BOTTOM_RIGHT]
        rows.append(row + [PADDING] * (shape[-1] - real))
    return np.array(rows, dtype=np.int64).reshape(shape)


def _coords(rng: np.random.Generator, labels: Array, extent: Iterable[int]) -> Array:
    """Positions (..., N, 2) in pixels; a box's corners are in order, padding is at the origin."""
    coords = rng.uniform(0, 1, (*labels.shape, 2)) * np.array(list(extent))
    if labels.shape[-1] >= 2:
        is_box = (labels[..., 0] == TOP_LEFT)[..., None, None]
        coords[..., :2, :] = np.where(is_box, np.sort(coords[..., :2, :], axis=-2), coords[..., :2, :])
    padding: Array = np.where((labels == PADDING)[..., None], 0.0, coords)
    return padding


def _flags(rng: np.random.Generator, shape: tuple[int, ...], mode: MaskInput | None) -> Array:
    mixed = rng.integers(0, 2, shape)
    return {"off": np.zeros(shape), "on": np.ones(shape)}.get(mode or "mixed", mixed)
