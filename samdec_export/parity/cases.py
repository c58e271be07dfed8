"""The cases of a validation: a sweep over a signature's ranges, or recorded inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from samdec_export.core.artifact import Record
from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import Case, Inputs, MaskInput, NamedFeeds, misfits, sizes_of
from samdec_export.core.options import SweepName
from samdec_export.core.runner import Array
from samdec_export.core.signature import Dim, Signature

__all__ = ["only_case", "outside_ranges", "range_notes", "read_feeds", "select_cases", "sweep", "sweep_within"]

QUICK_SIZES = (1, 3)
"""What a quick sweep takes of an independent axis: alone, and among others. Slices do not see each other there."""

SHOWN = 4
"""Cases outside their ranges that a warning names."""


def select_cases(
    record: Record,
    *,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int = 0,
    sweep: SweepName = "full",
    within: Sequence[Signature] = (),
) -> list[NamedFeeds]:
    """Return recorded inputs or a sweep, or one case of them by name.

    A sweep goes over the record's ranges, or over those of each signature in `within`, every case once.

    Raises:
        UsageError: There is no such case, or the recorded inputs do not fit.
    """
    if feeds:
        cases = read_feeds(feeds, record.signature)
    else:
        signatures = within or (record.signature,)
        cases = [NamedFeeds.of(signatures[0], one, seed) for one in sweep_within(signatures, sweep)]
    return cases if case is None else only_case(cases, case)


def sweep_within(signatures: Sequence[Signature], width: SweepName) -> list[Case]:
    """Return the cases of a sweep over the ranges of each signature, every case once."""
    return [*{case.name: case for signature in signatures for case in sweep(signature, width)}.values()]


def range_notes(record: Record, cases: list[NamedFeeds]) -> tuple[str, ...]:
    """Return a warning where inputs leave the ranges that a file was made for; it may well be right there."""
    found = outside_ranges(record.signature, cases)
    if not found:
        return ()
    shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return (f"warning: outside the ranges that the file was made for: {shown}.",)


def sweep(signature: Signature, width: SweepName = "full") -> list[Case]:
    """Return the cases that a validation runs: every corner of the ranges, and odd sizes between.

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


def read_feeds(path: Path, signature: Signature) -> list[NamedFeeds]:
    """Return recorded inputs.

    They are in an `.npz` file whose keys are input names, or `<case>/<input name>` for several cases; or in what
    Polygraphy saves, a `.json` file or a folder of them, with cases named `iteration 0` and so on.

    Raises:
        UsageError: The file cannot be read, or an input is missing, unknown, or of another dtype or shape.
    """
    if not path.is_file() and not (path.is_dir() and any(path.glob("*.json"))):
        raise UsageError(f"{path} does not exist, or is not a file.", "Check the path given as {feeds}.")
    if path.suffix == ".json" or path.is_dir():
        from samdec_export.parity.polygraphy import read_inputs

        cases = {f"iteration {number}": feeds for number, feeds in enumerate(read_inputs(path))}
    else:
        cases = _read_npz(path)
    if not cases:
        raise UsageError(f"{path} holds no arrays.", "Make it with numpy.savez(path, **inputs).")
    for case, feeds in cases.items():
        if problems := misfits(signature, feeds):
            raise UsageError(f"{path}, case {case}: {'; '.join(problems)}.", "samdec-export inspect shows the inputs.")
    return [
        NamedFeeds(case, sizes_of(signature, feeds), partial(_ready, Inputs(feeds))) for case, feeds in cases.items()
    ]


def _ready(feeds: Inputs) -> Inputs:
    return feeds


def _read_npz(path: Path) -> dict[str, dict[str, Array]]:
    """Arrays by case and input name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # numpy and zipfile raise a dozen types on damaged input, MemoryError among them
        hint = "Make one with numpy.savez."
        raise UsageError(f"{path} is not an .npz file of arrays, or is damaged.", hint) from error
    cases: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        case, _, name = key.rpartition("/")
        cases.setdefault(case or path.stem, {})[name] = array
    return cases


def only_case(cases: list[NamedFeeds], name: str) -> list[NamedFeeds]:
    """Return the case of that name; raise a UsageError if there is none."""
    chosen = [case for case in cases if case.name == name]
    if not chosen:
        shown = ", ".join(case.name for case in cases[:4])
        raise UsageError(f"There is no case {name!r} among {len(cases)}.", f"They are named like {shown}.")
    return chosen


def outside_ranges(signature: Signature, cases: Sequence[NamedFeeds]) -> list[str]:
    """Return the cases with an axis shorter or longer than its range, such as `clicks (points 40, not 1 to 16)`."""
    found = []
    for case in cases:
        beyond = [dim for dim in signature.dims if not dim.min <= case.sizes[dim.name] <= dim.max]
        if beyond:
            axes = ", ".join(f"{dim.name} {case.sizes[dim.name]}, not {dim.min} to {dim.max}" for dim in beyond)
            found.append(f"{case.name} ({axes})")
    return found


def _is_near(dims: tuple[Dim, ...], sizes: tuple[int, ...]) -> bool:
    """Return whether at most two axes are away from their opt, or all at their min or all at their max."""
    ranged = [(dim, size) for dim, size in zip(dims, sizes, strict=True) if not dim.independent]
    extreme = any(all(size == getattr(dim, end) for dim, size in ranged) for end in ("min", "max"))
    return extreme or sum(size != dim.opt for dim, size in ranged) <= 2


def _corner_sizes(dim: Dim, width: SweepName) -> tuple[int, ...]:
    if width == "quick" and dim.independent:
        return tuple(size for size in QUICK_SIZES if dim.min <= size <= dim.max) or (dim.min,)
    return dim.sizes


def _between(dim: Dim, part: float, width: SweepName) -> int:
    """Return an odd size at `part` of the range, inside it."""
    top = _limit(dim, dim.max, width)
    return min(top, int(dim.min + part * (top - dim.min)) | 1)


def _limit(dim: Dim, size: int, width: SweepName) -> int:
    """Return a size, or less in a quick sweep: it takes few slices of an independent axis."""
    return max(dim.min, min(size, QUICK_SIZES[-1])) if width == "quick" and dim.independent else size
