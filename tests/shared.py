"""What takes seconds to make is made by one of pytest's workers; the others copy it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = ["everyones", "made_in", "made_once"]

Made = TypeVar("Made")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Return a folder of this worker's own with what `make` put into it, and what it returned.

    Args:
        factory: pytest's, of this worker.
        name: What is made: the same name is the same thing.
        make: Fills an empty folder.
    """
    with made_in(everyones(factory), name, make) as (folder, made):
        own = shutil.copytree(folder, factory.mktemp("own") / "made")
    return own, made


def everyones(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that every worker of this run of pytest sees."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def made_in(everyone: Path, name: str, make: Callable[[Path], Made]) -> Iterator[tuple[Path, Made]]:
    """Hold everyone's folder with what `make` put into it, and give what it returned: to be copied, not changed."""
    folder = everyone / hashlib.sha256(name.encode()).hexdigest()[:16]
    with (everyone / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = folder.with_suffix(".pickle")
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            result.write_bytes(pickle.dumps(make(folder)))
        made: Made = pickle.loads(result.read_bytes())
        yield folder, made
