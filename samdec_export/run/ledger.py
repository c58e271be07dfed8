"""What was made from what: a stage whose inputs are the same, and whose files are whole, is not run again.

Each stage has one JSON file in the ledger's folder, written when the stage's files are in their places. It holds the
stage's inputs by name, with content hashes of files and never their times, the SHA-256 of every file that it made,
what it found out, and a hash over all of that. A run that was killed goes on where the last of them was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import samdec_export
from samdec_export.core.errors import UsageError
from samdec_export.core.files import holding, remove_abandoned, remove_empty, sha256, staging, write_text
from samdec_export.core.log import log
from samdec_export.run.results import StageResult

__all__ = [
    "Entry",
    "FileHashes",
    "Ledger",
    "Stage",
    "StageOutput",
    "code_hash",
    "open_ledger",
    "package_files",
    "package_hash",
]

FOLDER = ".samdec"
"""Of the ledger, in the folder that a run writes to."""

HASHES = "hashes.json"

R = TypeVar("R", bound=StageResult)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutput(Generic[R]):
    """What a stage leaves: files that are in their places, and what it found out."""

    files: tuple[Path, ...] = ()
    result: R


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[R]):
    """A piece of work, which `make` does and which finds out a `result`.

    Its files and its result follow from `inputs` alone: JSON, or paths, by names that a reader knows.
    """

    name: str
    inputs: Mapping[str, Any]
    result: type[R]
    make: Callable[[], StageOutput[R]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[R]):
    """A stage that is done: `files` has SHA-256 by path in `folder`; `reason` says why it was done, or not again."""

    folder: Path
    stage: str
    inputs: Mapping[str, Any]
    files: Mapping[str, str]
    result: R
    seconds: float
    reused: bool
    reason: str

    def file(self, ending: str) -> Path:
        """Return the file with that ending."""
        return next(self.folder / path for path in self.files if path.endswith(ending))

    @property
    def hash(self) -> str:
        """Return a hash over what it made and found out: equal where nothing that follows can differ."""
        return _hash({"files": dict(self.files), "result": self.result.to_json()})


class Ledger:
    """The entries of the folder `out`, which the stages write to, and those that this run asked for."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / FOLDER
        self.entries: list[Entry[Any]] = []

    def run_stage(self, stage: Stage[R]) -> Entry[R]:
        """Run a stage, unless it was done with the same inputs and its files are as it left them.

        Raises:
            SamdecError: The stage's own. Nothing is written to the ledger then.
        """
        inputs = json.loads(json.dumps(stage.inputs, default=os.fspath))
        known = self._read(stage)
        reason = self._staleness(known, inputs)
        if known is None or reason:
            log.debug("%s: %s", stage.name, reason)
            started = time.perf_counter()
            output = stage.make()
            seconds = round(time.perf_counter() - started, 3)
            known = {
                "inputs": inputs,
                "files": {path.relative_to(self.out).as_posix(): sha256(path) for path in output.files},
                "result": output.result.to_json(),
                "seconds": seconds,
            }
            write_text(self._path(stage.name), json.dumps({**known, "sha256": _hash(known)}, indent=1) + "\n")
        else:
            log.info("%-52s %8s", stage.name, "unchanged")
        why = reason or "nothing it depends on changed"
        result = stage.result.from_json(known.pop("result"))
        entry = Entry(folder=self.out, stage=stage.name, **known, result=result, reused=not reason, reason=why)
        self.entries.append(entry)
        return entry

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def _staleness(self, known: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> str:
        """Return why a stage has to be run; empty where it has not."""
        if known is None:
            return "not done before"
        names = [*dict.fromkeys((*inputs, *known["inputs"]))]
        if changed := [name for name in names if known["inputs"].get(name) != inputs.get(name)]:
            return f"{', '.join(changed)} changed"
        for name, digest in known["files"].items():
            path = self.out / name
            if not path.is_file():
                return f"{path} is gone"
            if sha256(path) != digest:
                return f"{path} was changed"
        return ""

    def _read(self, stage: Stage[R]) -> dict[str, Any] | None:
        """Return what is known of a stage; None where it was not done, or its file is damaged or of another kind."""
        try:
            known: dict[str, Any] = json.loads(self._path(stage.name).read_text(encoding="utf-8"))
            stage.result.from_json(known["result"])
            return known if known.pop("sha256") == _hash(known) else None
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def open_ledger(out: Path) -> Iterator[Ledger]:
    """Open the ledger of the folder `out`, which no other run may work in meanwhile.

    Raises:
        UsageError: Another one does, or the folder cannot be written to.
    """
    ledger = Ledger(out)
    made = [path for path in (ledger.folder, out, *out.parents) if not path.exists()]
    with staging(ledger.folder):
        pass  # a folder that cannot be written to is known before the work
    ledger.folder.mkdir(parents=True, exist_ok=True)
    try:
        with holding(ledger.folder) as ours:
            if not ours:
                raise UsageError(f"Another run works in {out}.", "Wait until it is done, or name another {out}.")
            remove_abandoned(out)
            remove_abandoned(ledger.folder)
            yield ledger
    finally:
        remove_empty(made)


class FileHashes:
    """SHA-256 of large files, remembered in `folder` by size, time of change and inode: hashing 2.5 GB takes seconds.

    `again` trusts nothing that is remembered.
    """

    def __init__(self, folder: Path, again: bool = False) -> None:
        self.path = folder / HASHES
        self.again = again

    def of(self, path: Path) -> str:
        """Return the hash of a file, or raise the OSError of reading it."""
        status = path.stat()
        identity = [status.st_size, status.st_mtime_ns, status.st_ino]
        key = str(path.resolve())
        known = self._read()
        if not self.again and isinstance(entry := known.get(key), dict) and entry.get("identity") == identity:
            return str(entry["sha256"])
        digest = sha256(path)
        write_text(self.path, json.dumps({**known, key: {"identity": identity, "sha256": digest}}, indent=1) + "\n")
        return digest

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
        except (OSError, ValueError, RecursionError):
            return {}


@cache
def code_hash() -> str:
    """Return a hash over every file of this package: another version of a stage is another stage."""
    return package_hash(Path(samdec_export.__file__).parent)


def package_hash(root: Path) -> str:
    """Return a hash over the names and the content of a package's files: code, templates, schemas, weights."""
    digest = hashlib.sha256()
    for path in package_files(root):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def package_files(root: Path) -> list[Path]:
    """Return every file of a package but what Python writes there itself, in a fixed order."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
