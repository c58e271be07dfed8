"""Files that are whole or absent: made in a folder beside their target and renamed into place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from samdec_export import interrupts
from samdec_export.errors import GraphError, UsageError

__all__ = ["sha256", "staging", "write_text"]


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A scratch folder on the same disk as `folder`, gone at the end whatever happens.

    Move finished files out of it with `os.replace`: a run that is killed leaves the old file or none.

    Raises:
        UsageError: `folder` cannot be made or written to.
        GraphError: A write inside the block failed, as on a full disk.
    """
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".samdec-", dir=folder))
    except OSError as error:
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}.", "Name a folder that can be written to with --out."
        ) from error
    try:
        with interrupts.final(partial(shutil.rmtree, scratch, ignore_errors=True)):
            yield scratch
    except OSError as error:
        raise GraphError(
            f"Writing to {folder} failed: {error.strerror or error}.", "Free some space, or use another --out folder."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all.

    Raises:
        UsageError, GraphError: As `staging` does.
    """
    if path.is_dir():
        raise UsageError(f"Cannot write {path}: it is a folder.", "Name a file.")
    with staging(path.parent) as scratch:
        draft = scratch / path.name
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in pieces: 2.5 GB need no 2.5 GB of memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
