"""The flow of a bundle: files that were exported or built go in, a folder that a server reads comes out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdec_export.backends.tensorrt.engine_file import EngineFile, open_engine
from samdec_export.core.artifact import Artifact
from samdec_export.core.errors import EngineError, GraphError, UsageError
from samdec_export.core.files import FilePath, as_path, staging
from samdec_export.core.log import step
from samdec_export.export.onnx_file import differences, load, open_artifact
from samdec_export.serving.options import ServingOptions, check_name
from samdec_export.serving.repository import ServedFile, ServedModel, write_guide, write_model

__all__ = ["Bundled", "BundledModel", "bundle"]

ENGINE_SUFFIXES = (".engine", ".plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledModel:
    """A model of a bundle and its files, version 1 first."""

    model: ServedModel
    files: tuple[ServedFile, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what clients and reports need to know."""
        return {
            "name": self.model.name,
            "backend": self.model.backend,
            "max_batch_size": self.model.max_batch_size,
            "versions": [
                {"version": number, "source": str(file.path), "sha256": file.sha256}
                for number, file in enumerate(self.files, start=1)
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A published folder."""

    path: Path
    models: tuple[BundledModel, ...]

    def to_json(self) -> dict[str, Any]:
        """Return where it is and what it holds."""
        return {"path": str(self.path), "models": [model.to_json() for model in self.models]}


def bundle(
    files: Sequence[FilePath],
    wanted: ServingOptions = ServingOptions(),  # noqa: B008  # frozen
    out: FilePath = "models",
) -> Bundled:
    """Write a model repository for Triton Inference Server, whole or not at all.

    Files that come out with one name are versions of one model, in the order given.

    Args:
        files: ONNX files and TensorRT engines, each with its record.
        wanted: How they are served.
        out: The folder to make.

    Raises:
        UsageError: `out` exists, a file is neither kind, or files of one name cannot be versions of one model.
        GraphError: An ONNX file has no record, or is not what its record or its sidecar says.
        EngineError: An engine has no sidecar or another's, or Triton cannot load it.
        DependencyError: tritonclient is not installed.
    """
    folder, paths = as_path(out), [as_path(file) for file in files]
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            f"Cannot write to {folder}: it exists already.",
            "Name another folder, or remove this one: a server may be reading it.",
        )
    models = tuple(_grouped([_open(path, wanted) for path in paths]))
    with step(f"Bundling {len(files)} files"), staging(folder.parent) as scratch:
        draft = scratch / "models"
        draft.mkdir()
        for entry in models:
            write_model(draft / entry.model.name, entry.model, entry.files, wanted)
        engines = [file for entry in models for file in entry.files if entry.model.backend == "tensorrt"]
        compatible = any(file.sidecar["settings"].get("version_compat") for file in engines)
        flags = ["--backend-config=tensorrt,version-compatible=true"] if compatible else []
        write_guide(draft, [entry.model for entry in models], flags, [*_notes(models, engines)])
        try:
            os.replace(draft, folder)  # an empty folder gives way, a filled one does not
        except OSError as error:
            hint = "Name a folder that does not exist."
            raise UsageError(f"Cannot write to {folder}: {error.strerror}.", hint) from error
    return Bundled(path=folder, models=models)


def _open(path: Path, wanted: ServingOptions) -> tuple[ServedModel, ServedFile]:
    if path.suffix == ".onnx":
        return _onnx(open_artifact(path), wanted)
    if path.suffix in ENGINE_SUFFIXES:
        return _engine(open_engine(path), wanted)
    raise UsageError(f"{path} is neither .onnx nor .engine.", "Name exported files, or engines of samdec-export trt.")


def _onnx(artifact: Artifact, wanted: ServingOptions) -> tuple[ServedModel, ServedFile]:
    record = artifact.record
    if found := [*differences(load(artifact.path), record.signature)]:
        raise GraphError(
            f"The inputs and outputs of {artifact.path} are not those of its record: {'; '.join(found)}.",
            "Another tool changed it: export it again.",
        )
    model = ServedModel(
        name=_name(record.file_name.removesuffix(".onnx"), artifact.path, wanted),
        backend="onnxruntime",
        signature=record.signature,
        profiles=(record.signature.dims,),
    )
    return model, ServedFile(path=artifact.path, sha256=artifact.sha256, sidecar=artifact.to_json())


def _engine(engine: EngineFile, wanted: ServingOptions) -> tuple[ServedModel, ServedFile]:
    record = engine.record
    model = ServedModel(
        name=_name(record.file_name.removesuffix(".engine"), engine.path, wanted),
        backend="tensorrt",
        signature=record.source.signature,
        profiles=tuple(record.profiles),
    )
    for refused, message, advice in _objections(engine, model, wanted):
        if refused:
            raise EngineError(f"{engine.path} {message}", advice)
    return model, ServedFile(path=engine.path, sha256=engine.sha256, sidecar=engine.to_json())


def _objections(engine: EngineFile, model: ServedModel, wanted: ServingOptions) -> Iterator[tuple[bool, str, str]]:
    """Yield what keeps Triton's TensorRT backend from serving an engine."""
    record = engine.record
    yield (
        record.engine == "rtx",
        "is a plan of TensorRT-RTX, which Triton's tensorrt backend cannot load.",
        f"Bundle {record.onnx} instead, or build with {{engine=tensorrt}} on a GPU like the server's.",
    )
    yield (
        wanted.kind == "cpu",
        "is an engine, and engines run on a GPU: {kind=cpu} is for ONNX files.",
        f"Leave out {{kind}}, or bundle {record.onnx}.",
    )
    yield (
        bool(record.settings.get("strip_weights")),
        "was built without its weights, and Triton does not put them back.",
        "Build it again without {strip_weights}.",
    )
    yield (
        model.min_batch_size > 1,
        f"takes no fewer than {model.min_batch_size} images at once, and Triton sends a lone request alone.",
        "Build it again with {profiles} that start at 1.",
    )


def _name(recorded: str, path: Path, wanted: ServingOptions) -> str:
    if wanted.name is None:
        check_name(recorded, f"{path}, by its record")
    return wanted.name or recorded


def _grouped(found: Sequence[tuple[ServedModel, ServedFile]]) -> Iterator[BundledModel]:
    """Yield models in order of appearance, each with its versions, whose files differ and which are told alike."""
    groups: dict[str, list[tuple[ServedModel, ServedFile]]] = {}
    for model, file in found:
        groups.setdefault(model.name, []).append((model, file))
    for name, group in groups.items():
        (first, reference), *rest = group
        digests = {reference.sha256: reference.path}
        for model, file in rest:
            if model != first:
                raise UsageError(
                    f"{reference.path} and {file.path} cannot be versions of {name!r}: {_difference(first, model)}.",
                    "Leave out {name}, or bundle them into two folders.",
                )
            if (twin := digests.setdefault(file.sha256, file.path)) != file.path or file.path == reference.path:
                raise UsageError(f"{twin} and {file.path} are the same file.", "Name each version once.")
        yield BundledModel(model=first, files=tuple(file for _, file in group))


def _difference(one: ServedModel, other: ServedModel) -> str:
    if one.backend != other.backend:
        return f"one is for {one.backend}, one for {other.backend}"
    if one.signature != other.signature:
        return "their inputs, outputs or ranges differ"
    return "they were built for other ranges"


def _notes(models: Sequence[BundledModel], engines: Sequence[ServedFile]) -> Iterator[str]:
    """Yield what a person has to know about these files before they run."""
    for file in engines:
        record = file.sidecar
        yield (
            f"`{file.path.name}` was built with TensorRT {record['version']} for {', '.join(record['targets'])}: "
            "the image must hold that version, and the GPU must be of that kind."
        )
    for entry in models:
        if axis := entry.model.batch_axis:
            yield (
                f"`{entry.model.name}`: requests share a batch along `{axis.name}` if all their other sizes are equal. "
                "Padding points (label -1) brings them to one size."
            )
