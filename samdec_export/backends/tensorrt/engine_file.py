"""A built engine: a plain plan file, as TensorRT's own tools read it, and a sidecar that says what it is.

TensorRT checks little before it loads a plan, and a wrong one may end the process. So the sidecar is checked first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.artifact import Record
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.files import move_with_sidecar, sha256, sidecar_of
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.core.signature import Dim

__all__ = ["EngineFile", "EngineRecord", "open_engine", "publish_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What an engine is and how it was built.

    Args:
        engine: TensorRT or TensorRT-RTX.
        version: Of it; an engine belongs to the version that built it.
        targets: GPU generations that it runs on.
        onnx: Name of the ONNX file.
        onnx_sha256: Of its bytes. Builds are not byte-identical: this and `settings` tell whether two are alike.
        settings: Of the build.
        profiles: The ranges that it was tuned for, every dynamic axis in each.
        tensors: Inputs and outputs: name, kind, dtype (TensorRT's name), shape with axes by name.
        histogram: Layers of the parsed network by type and data type.
        warnings: What the builder said.
        seconds: What parsing and building took.
        tools: Versions of the packages that took part.
        source: The record of the ONNX file.
    """

    engine: EngineName
    version: str
    targets: Sequence[str]
    onnx: str
    onnx_sha256: str
    settings: Mapping[str, Any]
    profiles: Sequence[Profile]
    tensors: Sequence[Mapping[str, Any]]
    histogram: Mapping[str, Mapping[str, int]]
    warnings: Sequence[str]
    seconds: float
    tools: Mapping[str, str]
    source: Record

    @property
    def file_name(self) -> str:
        """Return `<model>.<graph>.<precision>.<targets>.engine`."""
        source = self.source
        return f"{source.model}.{source.graph}.{source.precision_label}.{'-'.join(self.targets)}.engine"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        profiles = [[asdict(dim) for dim in profile] for profile in self.profiles]
        lists = {"targets": [*self.targets], "tensors": [*self.tensors], "warnings": [*self.warnings]}
        return {**fields, **lists, "profiles": profiles, "source": self.source.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineRecord:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: `data` is not such an object.
        """
        fields = {name: data[name] for name in cls.__slots__}
        if fields["engine"] not in ENGINES or not all(isinstance(target, str) for target in fields["targets"]):
            raise ValueError(f"engine is {fields['engine']!r} for {fields['targets']!r}")
        fields |= {name: tuple(data[name]) for name in ("targets", "tensors", "warnings")}
        fields["profiles"] = tuple(tuple(Dim(**dim) for dim in profile) for profile in data["profiles"])
        fields["source"] = Record.from_json(data["source"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """A published engine and its record."""

    path: Path
    record: EngineRecord
    sha256: str

    @property
    def sidecar(self) -> Path:
        """Return `<file>.json`."""
        return sidecar_of(self.path)

    @property
    def onnx(self) -> Path | None:
        """Return the ONNX file that it was built from, if that lies beside it as it was then."""
        beside = self.path.with_name(self.record.onnx)
        return beside if beside.is_file() and sha256(beside) == self.record.onnx_sha256 else None

    def to_json(self) -> dict[str, Any]:
        """Return what the sidecar holds."""
        return {"file": self.path.name, "sha256": self.sha256, **self.record.to_json()}


def publish_engine(draft: Path, record: EngineRecord, folder: Path) -> EngineFile:
    """Move a finished plan into `folder` under the record's name and write its sidecar.

    Args:
        draft: The finished plan, on the same disk as `folder`.
        record: What it is.
        folder: Where it goes.
    """
    published = EngineFile(path=folder / record.file_name, record=record, sha256=sha256(draft))
    move_with_sidecar(draft, published.path, published.to_json())
    return published


def open_engine(path: Path) -> EngineFile:
    """Open an engine whose sidecar describes these very bytes, which needs neither CUDA nor TensorRT.

    Raises:
        EngineError: It cannot be read, has no sidecar or a damaged one, or was changed, cut off or replaced.
    """
    sidecar = sidecar_of(path)
    again = "Build it again with samdec-export trt."
    try:
        data = json.loads(sidecar.read_text(encoding="utf-8"))
        found = sha256(path)
        size = path.stat().st_size
    except FileNotFoundError as error:
        reason = f"has no {sidecar.name}: not known what it is" if path.exists() else "does not exist"
        raise EngineError(f"{path} {reason}.", again) from error
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.", again) from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{sidecar} is damaged.", again) from error
    try:
        engine = EngineFile(path=path, record=EngineRecord.from_json(data), sha256=data["sha256"])
    except (AttributeError, KeyError, TypeError, ValueError, UsageError) as error:
        raise EngineError(f"{sidecar} is damaged, or not of an engine.", again) from error
    if found != engine.sha256:
        raise EngineError(
            f"{path} ({size} bytes) is not the file that {sidecar.name} describes: cut off, changed or replaced.", again
        )
    return engine
