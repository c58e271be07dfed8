"""Files that are whole or absent: made in a folder beside their target and renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

from samdec_export.core import interrupts
from samdec_export.core.errors import GraphError, UsageError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "FilePath",
    "as_path",
    "check_target",
    "holding",
    "move_with_sidecar",
    "optional_path",
    "remove_abandoned",
    "remove_empty",
    "sha256",
    "sidecar_of",
    "staging",
    "write_text",
]

FilePath: TypeAlias = str | os.PathLike[str]
"""What names a file or folder in Python."""

SCRATCH = ".samdec-"


def as_path(path: FilePath) -> Path:
    """Return a path; raise UsageError where it is empty: `Path("")` would be the working folder."""
    if not os.fspath(path):
        raise UsageError("A path is empty.", "Name a file or folder.")
    return Path(path)


def optional_path(path: FilePath | None) -> Path | None:
    """Return a path as `as_path` does, or None where there is none."""
    return None if path is None else as_path(path)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder on the same disk as `folder`, gone at the end whatever happens.

    Move finished files out of it with `os.replace`: a run that is killed leaves the old file or none. The scratch
    folder of a process that was ended by force stays; `remove_abandoned` takes it away.

    Raises:
        UsageError: `folder` cannot be made or written to.
        GraphError: A write inside the block failed, as on a full disk.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
    except OSError as error:
        remove_empty(made)
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}.", "Name a place that can be written to."
        ) from error
    try:
        with holding(scratch), interrupts.final(partial(shutil.rmtree, scratch, ignore_errors=True)):
            yield scratch
    except OSError as error:
        raise GraphError(
            f"Writing to {folder} failed: {error.strerror or error}.",
            "Check the folder and the space on its disk, or write to another one.",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        remove_empty(made)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Lock a file or folder while the block runs; whether that succeeded, and nobody else holds it.

    The system lets go of it when the process ends, however it ends. Where there are no locks, it succeeds.
    """
    if sys.platform == "win32":
        yield True
        return
    handle, ours = os.open(path, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # anything else is a disk without locks
            ours = not isinstance(error, BlockingIOError)
        yield ours
    finally:
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove the scratch folders that processes which were ended by force left in `folder`."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        with suppress(OSError), holding(scratch) as ours:
            if ours:
                shutil.rmtree(scratch, ignore_errors=True)


def check_target(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise UsageError where a report cannot be written to `path`: a folder, or one of the run's own inputs."""
    if os.path.isdir(path):
        raise UsageError(f"Cannot write {path}: it is a folder.", "Name a file.")
    for source in inputs:
        if source and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"Cannot write {path}: it is an input of this run.", "Name another file.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all, with errors as of `staging`; to a device or a pipe as it comes."""
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        path.write_text(text, encoding="utf-8")
        return
    with staging(path.parent) as scratch:
        draft = scratch / path.name
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def sidecar_of(path: Path) -> Path:
    """`<file>.json`."""
    return path.with_name(path.name + ".json")


def move_with_sidecar(draft: Path, target: Path, content: object) -> None:
    """Move a finished file into place from a scratch folder on the same disk, with `content` as JSON in its sidecar.

    An interrupt comes before both or after both. A process that is killed between the two leaves a sidecar that does
    not describe the file, which is noticed by its SHA-256.
    """
    sidecar = sidecar_of(draft.with_name(target.name))
    sidecar.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with interrupts.deferred():
        os.replace(draft, target)
        os.replace(sidecar, sidecar_of(target))


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders, innermost first, that exist and are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces: 2.5 GB need no 2.5 GB of memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
