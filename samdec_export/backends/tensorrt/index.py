"""The engines of a folder, and which of them this machine can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.tensorrt.engine_file import EngineFile, EngineRecord, open_engine
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.files import FilePath, as_path
from samdec_export.core.packages import ENGINES

if TYPE_CHECKING:
    from samdec_export.backends.machine import Machine

__all__ = ["EngineEntry", "list_engines", "obstacle"]

AMPERE = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """An engine file. `engine` is None where `obstacle`, why it cannot run here, is that it is not sound."""

    path: Path
    engine: EngineFile | None
    obstacle: str

    def to_json(self) -> dict[str, Any]:
        """Return what the file is, if that is known, and whether it can run."""
        record = self.engine.record if self.engine else None
        return {
            "path": str(self.path),
            "sound": self.engine is not None,
            "runs_here": not self.obstacle,
            "obstacle": self.obstacle,
            "engine": record and record.engine,
            "version": record and record.version,
            "targets": list(record.targets) if record else [],
            "precision": record and record.source.precision,
            "model": record and record.source.model,
            "graph": record and record.source.graph,
            "onnx": record and record.onnx,
        }


def list_engines(folder: FilePath) -> list[EngineEntry]:
    """Return every `.engine` file of a folder, by name.

    Files are checked against their sidecars before the machine is looked at.

    Raises:
        UsageError: There is no such folder.
    """
    where = as_path(folder)
    if not where.is_dir():
        raise UsageError(f"There is no folder {where}.", "Name the folder that engines were built in.")
    found = [_open(path) for path in sorted(where.glob("*.engine"))]
    if not any(entry.engine for entry in found):
        return found
    from samdec_export.backends.machine import look

    return list(_judged(found, look()))


def _open(path: Path) -> EngineEntry:
    try:
        return EngineEntry(path=path, engine=open_engine(path), obstacle="")
    except EngineError as error:
        return EngineEntry(path=path, engine=None, obstacle=error.message)


def _judged(found: list[EngineEntry], machine: Machine) -> Iterator[EngineEntry]:
    for entry in found:
        if entry.engine is None:
            yield entry
        else:
            yield EngineEntry(path=entry.path, engine=entry.engine, obstacle=obstacle(entry.engine.record, machine))


def obstacle(record: EngineRecord, machine: Machine) -> str:
    """Return why an engine cannot run on a machine; empty where it can, as far as its record tells."""
    version = machine.versions.get(record.engine)
    if machine.gpu is None:
        return "no GPU here"
    if version is None:
        return f"{ENGINES[record.engine].title} is not installed"
    if not _fits_version(record, version):
        return f"built with {record.version}, here is {version}"
    if not _fits_gpu(record, machine.gpu.target):
        return f"built for {', '.join(record.targets)}, here is {machine.gpu.target} ({machine.gpu.name})"
    return ""


def _fits_version(record: EngineRecord, version: str) -> bool:
    if not record.settings.get("version_compat"):
        return version == record.version
    built, here = (_numbers(text) for text in (record.version, version))
    return built[:1] == here[:1] and built <= here


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _fits_gpu(record: EngineRecord, target: str) -> bool:
    """Return whether a GPU is of its generation; with hardware compatibility every one from Ampere on fits."""
    generation = int(target.removeprefix("sm"))
    return target in record.targets or bool(record.settings.get("hardware_compat") and generation >= AMPERE)
