"""What the stages of a run found out, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from samdec_export.backends.tensorrt.engine_file import EngineFile, EngineRecord
from samdec_export.core.dtypes import Precision
from samdec_export.core.plain import from_plain, to_plain
from samdec_export.core.results import MaskPair
from samdec_export.report.parts import ArtifactEntry, Checkpoint, Comparison, RangeRow, Timing

if TYPE_CHECKING:
    from samdec_export.core.artifact import Artifact
    from samdec_export.parity.comparisons import Validated

__all__ = ["BenchResult", "EngineResult", "FileResult", "ParityResult", "StageResult", "timing_of"]

R = TypeVar("R", bound="StageResult")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """Of a stage that makes files and finds nothing else out."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        found: dict[str, Any] = to_plain(self)
        return found

    @classmethod
    def from_json(cls: type[R], data: Mapping[str, Any]) -> R:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: `data` is not such an object.
        """
        return from_plain(cls, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult(StageResult):
    """An ONNX file; `parent` is the SHA-256 of the fp32 file that it was converted from, whose tensors had `ranges`."""

    entry: ArtifactEntry
    model: str
    graph: str
    parent: str
    checkpoint: Checkpoint
    ranges: tuple[RangeRow, ...] = ()

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        operators: Mapping[str, int],
        products: Mapping[str, float] | None = None,
        ranges: tuple[RangeRow, ...] = (),
    ) -> FileResult:
        """Return what a report says of a file that a stage wrote."""
        record = artifact.record
        entry = ArtifactEntry(
            name=artifact.path.name,
            kind="onnx",
            precision=record.precision,
            file=artifact.path.name,
            bytes=artifact.path.stat().st_size,
            sha256=artifact.sha256,
            status="validated",
            operators=operators,
            casts=operators.get("Cast", 0),
            products=products,
            kept=record.kept or None,
            details={"opset": str(record.opset), "arrangement": record.arrangement, "masks": record.masks},
        )
        checkpoint, own = Checkpoint(**to_plain(record.checkpoint)), {"model": record.model, "graph": record.graph}
        return cls(entry=entry, **own, parent=record.parent, checkpoint=checkpoint, ranges=ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult(StageResult):
    """A built engine: its file's name, SHA-256 and bytes, and its record."""

    file: str
    sha256: str
    bytes: int
    record: EngineRecord

    @classmethod
    def of(cls, engine: EngineFile) -> EngineResult:
        """Return what is known of an engine that a stage built."""
        size = engine.path.stat().st_size
        return cls(file=engine.path.name, sha256=engine.sha256, bytes=size, record=engine.record)

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "sha256": self.sha256, "bytes": self.bytes, "record": self.record.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineResult:
        return cls(**{**data, "record": EngineRecord.from_json(data["record"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityResult(StageResult):
    """The comparisons of a file, its worst masks, and what could not be compared.

    `obstacle` says why an engine that fits this machine was not run after all.
    """

    file: str
    comparisons: tuple[Comparison, ...] = ()
    masks: tuple[MaskPair, ...] = ()
    notes: tuple[str, ...] = ()
    obstacle: str = ""

    @classmethod
    def of(cls, done: Validated, file: str, precision: Precision) -> ParityResult:
        """Return what a validation with evidence found on the file of that name, by the limits of a precision."""
        return cls(
            file=file,
            comparisons=tuple(Comparison.of(result, file, precision) for result in done.results),
            masks=tuple(replace(mask, artifact=file) for result in done.results for mask in result.masks),
            notes=tuple(f"{file}: {note}" for note in done.notes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult(StageResult):
    """Measured times, and the threads of each candidate."""

    threads: int
    timings: tuple[Timing, ...]


def timing_of(measurement: Mapping[str, Any]) -> Timing:
    """Return a measurement of `Benchmarked.to_json` as the document has it; files by name, whatever their folder.

    Raises:
        KeyError, TypeError, ValueError: It is no such measurement.
    """
    low, high = measurement.get("spread") or (None, None)
    load = measurement["workload"]
    return Timing(
        candidate=Path(measurement["candidate"]).name,
        images=int(load["images"]),
        prompts=int(load["prompts"]),
        points=int(load["points"]),
        median=_seconds(measurement.get("median")),
        low=_seconds(low),
        high=_seconds(high),
        per_prompt=_seconds(measurement.get("per_prompt")),
        unsupported=str(measurement.get("unsupported", "")),
    )


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
