"""What an ONNX file holds, for people and reports."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from samdec_export.core.artifact import Artifact, Record
from samdec_export.core.errors import GraphError
from samdec_export.core.files import sha256
from samdec_export.core.signature import Signature

__all__ = [
    "GraphSummary",
    "TensorSummary",
    "describe",
    "differences",
    "dtype_name",
    "load",
    "open_artifact",
    "stamp",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """An input or output as the file declares it: dtype by NumPy's name, axes by name or size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSummary:
    """The contents of one ONNX file. `parameters` counts the elements of initialisers."""

    opset: int
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    ops: dict[str, int]
    parameters: int
    bytes: int
    metadata: dict[str, str]

    @property
    def nodes(self) -> int:
        """Return the number of nodes."""
        return sum(self.ops.values())

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON."""
        return asdict(self)


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        GraphError: It does not exist or is not ONNX.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise GraphError(f"{path} is a folder, a device or a pipe, not a file.", "Name an ONNX file.")
    try:
        model = onnx.load(path)
    except OSError as error:
        raise GraphError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise GraphError(f"{path} is not an ONNX file, or is damaged.", "Export it again.") from error
    if not model.graph.node:
        raise GraphError(f"{path} is not an ONNX file: it holds no graph.", "Export it again.")
    return model


def describe(path: Path) -> GraphSummary:
    """Summarise an ONNX file.

    Raises:
        GraphError: As `load`.
    """
    model = load(path)
    try:
        return _summary(model, path)
    except (KeyError, TypeError, ValueError) as error:  # names that are not text, dtypes that do not exist
        raise GraphError(f"{path} is a damaged ONNX file.", "Export it again.") from error


def _summary(model: onnx.ModelProto, path: Path) -> GraphSummary:
    ops = Counter(node.op_type for node in model.graph.node)
    return GraphSummary(
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(math.prod(tensor.dims) for tensor in model.graph.initializer),
        bytes=path.stat().st_size,
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def open_artifact(path: Path) -> Artifact:
    """Return the artifact at `path`: its record from the file itself, checked against the sidecar if there is one.

    Raises:
        NoRecordError: samdec-export did not write it.
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    record = Record.from_metadata(describe(path).metadata, path)
    artifact = Artifact(path=path, record=record, sha256=sha256(path))
    artifact.check_sidecar()
    return artifact


def differences(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    """Yield how a graph's inputs and outputs differ from a signature: names in order, types, axes."""
    for kind, values, specs in (
        ("inputs", model.graph.input, signature.inputs),
        ("outputs", model.graph.output, signature.outputs),
    ):
        found = [_tensor(value) for value in values]
        if [tensor.name for tensor in found] != [spec.name for spec in specs]:
            yield f"{kind} are {[tensor.name for tensor in found]}, not {[spec.name for spec in specs]}"
            continue
        for tensor, spec in zip(found, specs, strict=True):
            if tensor.shape != spec.labels:
                yield f"{spec.name} has axes {tensor.shape}, not {spec.labels}"
            if tensor.dtype != spec.dtype:
                yield f"{spec.name} is {tensor.dtype}, not {spec.dtype}"


def stamp(path: Path, metadata: dict[str, str]) -> None:
    """Write `metadata` into an ONNX file, in place of what it held."""
    model = load(path)
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def _tensor(value: onnx.ValueInfoProto) -> TensorSummary:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return TensorSummary(name=value.name, dtype=dtype_name(tensor.elem_type), shape=shape)


def dtype_name(elem_type: int) -> str:
    """Return NumPy's name of an ONNX element type; a file of another maker may hold any."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type)) if elem_type else "undefined"
