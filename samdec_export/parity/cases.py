"""The cases of a validation: a sweep over a signature's ranges, or recorded inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from samdec_export.core.artifact import Record
from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import Inputs, NamedFeeds, misfits, sizes_of
from samdec_export.core.options import SweepName
from samdec_export.core.runner import Array
from samdec_export.core.signature import Signature
from samdec_export.parity.sweeps import sweep_within

__all__ = ["only_case", "outside_ranges", "range_notes", "read_feeds", "select_cases"]

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


def range_notes(record: Record, cases: list[NamedFeeds]) -> tuple[str, ...]:
    """Return a warning where inputs leave the ranges that a file was made for; it may well be right there."""
    found = outside_ranges(record.signature, cases)
    if not found:
        return ()
    shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return (f"warning: outside the ranges that the file was made for: {shown}.",)


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
