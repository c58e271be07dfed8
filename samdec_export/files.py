"""Files that are whole or absent: made in a folder beside their target and renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from samdec_export import interrupts
from samdec_export.errors import GraphError, UsageError

__all__ = ["check_target", "move_with_sidecar", "sha256", "sidecar_of", "staging", "write_text"]


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A scratch folder on the same disk as `folder`, gone at the end whatever happens.

    Move finished files out of it with `os.replace`: a run that is killed leaves the old file or none.

    Raises:
        UsageError: `folder` cannot be made or written to.
        GraphError: A write inside the block failed, as on a full disk.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".samdec-", dir=folder))
    except OSError as error:
        _remove_empty(made)
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}.", "Name a place that can be written to."
        ) from error
    try:
        with interrupts.final(partial(shutil.rmtree, scratch, ignore_errors=True)):
            yield scratch
    except OSError as error:
        raise GraphError(
            f"Writing to {folder} failed: {error.strerror or error}.",
            "Check the folder and the space on its disk, or write to another one.",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(made)


def check_target(path: Path, inputs: Iterable[Path | None]) -> None:
    """Do nothing if a report may be written to `path`.

    Raises:
        UsageError: It is a folder, or one of the run's own inputs.
    """
    if os.path.isdir(path):
        raise UsageError(f"Cannot write {path}: it is a folder.", "Name a file.")
    for source in inputs:
        if source and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"Cannot write {path}: it is an input of this run.", "Name another file.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; to a device or a pipe as it comes.

    Raises:
        UsageError, GraphError: As `staging` does.
    """
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
    """Move a finished file into place, and a sidecar with it.

    An interrupt comes before both or after both. A process that is killed between the two leaves a sidecar that does
    not describe the file, which is noticed by its SHA-256.

    Args:
        draft: The finished file, in a scratch folder on the same disk as `target`.
        target: Where it goes.
        content: What the sidecar says, as JSON.
    """
    sidecar = sidecar_of(draft.with_name(target.name))
    sidecar.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with interrupts.deferred():
        os.replace(draft, target)
        os.replace(sidecar, sidecar_of(target))


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders, innermost first, that exist and are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in pieces: 2.5 GB need no 2.5 GB of memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
