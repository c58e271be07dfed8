"""A file, its sidecar, and the record in both: what a file is, what it was made from and by what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from samdec_export.core.choices import options_of
from samdec_export.core.dtypes import PRECISIONS, Precision
from samdec_export.core.errors import GraphError, NoRecordError, UsageError
from samdec_export.core.files import move_with_sidecar, sha256, sidecar_of
from samdec_export.core.options import (
    ARRANGEMENTS,
    GRAPHS,
    MASKS,
    OPSETS,
    ArrangementName,
    GraphName,
    GraphOptions,
    MasksMode,
)
from samdec_export.core.signature import Signature

__all__ = ["Artifact", "CheckpointRef", "Record", "publish"]

METADATA_PREFIX = "samdec_export."

FORMER_NAMES = {"keep": "keep_fp32", "all_products": "all_matmuls"}
"""Of choices in the conversions of older records."""

KNOWN: Final[Mapping[str, tuple[object, ...]]] = {
    "format": ("onnx",),
    "precision": PRECISIONS,
    "io": ("fp32", "fp16"),
    "graph": GRAPHS,
    "masks": MASKS,
    "arrangement": ARRANGEMENTS,
    "opset": OPSETS,
    "mask_input": (True, False),
    "dynamic_grid": (True, False),
}
"""What each of these fields may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    """The checkpoint that weights came from.

    `weights_sha256` covers the decoder's and prompt encoder's tensors alone, after renaming and upcasting: the same
    weights give the same digest whatever file they are read from. `file` is None for embedded weights, and `sha256`
    too for seeded ones.
    """

    file: str | None
    sha256: str | None
    layout: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an artifact is and where it came from; the same on every machine and at every time.

    `choices` says what was chosen for the signature, and why: a line for each choice. `io` is the precision of inputs
    and outputs. A converted graph names the SHA-256 of the fp32 file that it was made from in `parent`, empty
    otherwise, in `conversion` what was asked of the conversion (`Conversion.to_json`), and in `kept` its nodes that
    stay in fp32, with reasons.
    """

    format: Literal["onnx"]
    precision: Precision
    io: Precision
    parent: str
    conversion: Mapping[str, Any]
    kept: Mapping[str, str]
    model: str
    grid: int
    graph: GraphName
    masks: MasksMode
    mask_input: bool
    dynamic_grid: bool
    arrangement: ArrangementName
    choices: Sequence[str]
    opset: int
    checkpoint: CheckpointRef
    signature: Signature
    tools: Mapping[str, str]

    @property
    def options(self) -> GraphOptions:
        """Return the options that make the same graph again."""
        return options_of(GraphOptions, self, ranges=self.signature.dims)

    @property
    def precision_label(self) -> str:
        """Return how file names say it: `fp16`, or `fp16.all-products`, the former name of `all_matmuls`."""
        return self.precision + (".all-products" if self.conversion.get("all_matmuls") else "")

    @property
    def file_name(self) -> str:
        """Return `<model>.<graph>.onnx`, with the precision before the ending where it is not fp32."""
        precision = "" if self.precision == "fp32" else f".{self.precision_label}"
        return f"{self.model}.{self.graph}{precision}.{self.format}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields |= {name: dict(fields[name]) for name in ("conversion", "kept", "tools")}
        fields |= {"choices": list(self.choices), "checkpoint": asdict(self.checkpoint)}
        return {**fields, "signature": self.signature.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read what `to_json` wrote; KeyError, TypeError, ValueError: `data` is not such an object."""
        fields = {name: data[name] for name in cls.__slots__}
        for name, known in KNOWN.items():
            if data[name] not in known:
                raise ValueError(f"{name} is {data[name]!r}")
        if not isinstance(data["model"], str) or not isinstance(data["grid"], int):
            raise TypeError("model is text, grid is a number")
        fields["choices"] = tuple(data["choices"])
        fields |= {name: dict(data[name]) for name in ("tools", "kept")}
        fields["conversion"] = {FORMER_NAMES.get(name, name): value for name, value in data["conversion"].items()}
        fields["checkpoint"] = CheckpointRef(**data["checkpoint"])
        fields["signature"] = Signature.from_json(data["signature"])
        record = cls(**fields)
        _ = record.options  # raises where they contradict each other
        return record

    def to_metadata(self) -> dict[str, str]:
        """Return the record as ONNX metadata, for a file without its sidecar: strings as they are, all else as JSON."""
        return {
            METADATA_PREFIX + key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in self.to_json().items()
        }

    @classmethod
    def from_metadata(cls, properties: Mapping[str, str], origin: Path) -> Record:
        """Read what `to_metadata` wrote into the ONNX file `origin`.

        Raises:
            NoRecordError: The file carries no such record.
            GraphError: It is damaged.
        """
        fields = {
            key.removeprefix(METADATA_PREFIX): value
            for key, value in properties.items()
            if key.startswith(METADATA_PREFIX)
        }
        if not fields:
            raise NoRecordError(
                f"{origin} carries no record of how it was made.",
                "It was not written by samdec-export, or another tool dropped its metadata: export it again.",
            )
        try:
            texts = ("format", "precision", "io", "parent", "model", "graph", "masks", "arrangement")
            return cls.from_json({key: value if key in texts else json.loads(value) for key, value in fields.items()})
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, UsageError) as error:
            raise GraphError(
                f"The record in {origin} is damaged, or of another version of samdec-export.", "Export it again."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A published file and its record."""

    path: Path
    record: Record
    sha256: str

    @property
    def sidecar(self) -> Path:
        """Return `<file>.json`."""
        return sidecar_of(self.path)

    def to_json(self) -> dict[str, Any]:
        """Return what the sidecar holds."""
        return {"file": self.path.name, "sha256": self.sha256, **self.record.to_json()}

    def check_sidecar(self) -> None:
        """Raise GraphError where there is a sidecar that is damaged, or describes other bytes."""
        if not self.sidecar.exists():
            return
        try:
            described = json.loads(self.sidecar.read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise GraphError(f"{self.sidecar} is damaged.", "Delete it, or export again.") from error
        if described != self.sha256:
            raise GraphError(
                f"{self.path} is not the file that {self.sidecar.name} describes: it was changed or replaced.",
                "Export it again, or delete the sidecar to use the file as it is.",
            )


def publish(draft: Path, record: Record, folder: Path) -> Artifact:
    """Move a finished file into `folder`, on the same disk, under the record's name, and write its sidecar."""
    artifact = Artifact(path=folder / record.file_name, record=record, sha256=sha256(draft))
    move_with_sidecar(draft, artifact.path, artifact.to_json())
    return artifact
