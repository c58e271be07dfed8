"""Read a checkpoint: recognise it by its keys, rename by table, load strictly, report every mismatch.

Only the decoder's and the prompt encoder's tensors are copied; the image encoder's stay on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from samdec_export.core.artifact import Artifact, CheckpointRef
from samdec_export.core.errors import CheckpointError, GraphError, UsageError
from samdec_export.core.files import sha256
from samdec_export.core.log import step
from samdec_export.models.layouts import find_layout, nearest_family
from samdec_export.models.registry import EMBEDDED, MODELS, ModelSpec, find_model
from samdec_export.models.sam.decoder import SamDecoder, seed_weights
from samdec_export.models.tensor_files import checkpoint_digest, open_tensors

__all__ = ["LoadedModel", "load_for", "load_model"]

PARTS = ("prompt_encoder.", "mask_decoder.")
POSITIONS = "image_encoder.pos_embed"
SEED = 0
LARGEST_GRID = 256
"""Image tokens along one side: four times what the published models have."""

LISTED = 12
"""Mismatches named in one error; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A decoder with its weights; `grid` is the checkpoint's own where it has one, else the registry's."""

    spec: ModelSpec
    grid: int
    decoder: SamDecoder
    checkpoint: CheckpointRef


def load_model(checkpoint: Path | None, name: str | None = None) -> LoadedModel:
    """Load a decoder from a checkpoint, or one whose weights are embedded or seeded.

    Args:
        checkpoint: A file or a Hugging Face folder; None for a model that needs none, by default the embedded one.
        name: The model's name or alias; beside a checkpoint, for one that does not say (without its image encoder).

    Raises:
        CheckpointError: It cannot be read, is not a known model, or does not hold what the model needs.
        UsageError: There is no model of that name.
    """
    wanted = find_model(name) if name is not None else None
    if checkpoint is not None:
        return _read(checkpoint, wanted)
    spec = wanted or MODELS[EMBEDDED]
    if spec.needs_checkpoint:
        free = " and ".join(spec.name for spec in MODELS.values() if not spec.needs_checkpoint)
        raise CheckpointError(f"{spec.name} needs a checkpoint.", f"Give its file as {{checkpoint}}; {free} need none.")
    if spec.weights:  # this package's own file, which nobody has to name again: the reference keeps its digest alone
        loaded = _read(Path(__file__).with_name(spec.weights), spec)
        return replace(loaded, checkpoint=replace(loaded.checkpoint, file=None))
    return _seeded(spec)


def load_for(artifact: Artifact, checkpoint: Path | None) -> LoadedModel:
    """Return the decoder that an artifact was exported from.

    Raises:
        UsageError: No checkpoint where one is needed.
        CheckpointError, GraphError: As the stages say.
    """
    record = artifact.record
    if checkpoint is None and record.checkpoint.file is not None:
        raise UsageError(
            f"{artifact.path} was exported from {record.checkpoint.file}: the reference needs it.",
            "Give its file as {checkpoint}.",
        )
    if record.model not in MODELS:
        raise GraphError(
            f"The record in {artifact.path} names a model that is not known: {record.model!r}.", "Export it again."
        )
    return load_model(checkpoint, record.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """An opened checkpoint: its tensors under segment-anything's names, and the names that the file uses."""

    path: Path
    layout: str
    tensors: Mapping[str, Tensor]
    file_names: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> _Source:
        file, tensors = open_tensors(path)
        layout = find_layout(tensors, _expected(MODELS["sam_b"]).keys())
        if layout is None:
            found = sorted(tensors)
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise CheckpointError(
                f"{file} is of another network: {len(found)} tensors ({shown}), no SAM mask decoder among them.",
                f"{nearest_family(found)} Supported: {', '.join(spec.name for spec in MODELS.values())}.",
            )
        names = layout.upstream_names(tensors)
        renamed = {upstream: tensors[name] for upstream, name in names.items()}
        return cls(path=file, layout=layout.name, tensors=renamed, file_names=names)

    def called(self, upstream: str) -> str:
        """Return the file's own name of a tensor, or segment-anything's where the file lacks it."""
        return self.file_names.get(upstream, upstream)


def _expected(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the name and shape of every tensor that the model needs, without storage."""
    with torch.device("meta"):
        return dict(SamDecoder(spec.architecture).state_dict())


def _read(checkpoint: Path, wanted: ModelSpec | None) -> LoadedModel:
    with step(f"Reading {checkpoint.name}"):
        source = _Source.read(checkpoint)
        spec = _recognise(source, wanted)
        with torch.device("meta"):
            decoder = SamDecoder(spec.architecture).eval()
        decoder.load_state_dict(_collect(source, spec), strict=True, assign=True)
        decoder.requires_grad_(False)
    with step(f"Hashing {source.path.name}"):
        digest = checkpoint_digest(source.path, sha256)
    return LoadedModel(
        spec=spec,
        grid=_grid(source, spec),
        decoder=decoder,
        checkpoint=CheckpointRef(
            file=source.path.name, sha256=digest, layout=source.layout, weights_sha256=_weights_digest(decoder)
        ),
    )


def _seeded(spec: ModelSpec) -> LoadedModel:
    decoder = SamDecoder(spec.architecture).eval().requires_grad_(False)
    seed_weights(decoder, SEED)
    reference = CheckpointRef(
        file=None, sha256=None, layout=f"seeded ({SEED})", weights_sha256=_weights_digest(decoder)
    )
    return LoadedModel(spec=spec, grid=spec.architecture.grid, decoder=decoder, checkpoint=reference)


def _recognise(source: _Source, wanted: ModelSpec | None) -> ModelSpec:
    """Return the registry row whose image encoder, or else whose width, the checkpoint shows."""
    # An encoder's shape is proof of the model; without one, only the width of the decoder is left to go by.
    shapes = {name: tuple(tensor.shape) for name, tensor in source.tensors.items()}
    encoders = ((spec, spec.encoder) for spec in MODELS.values() if spec.encoder)
    found = next((spec for spec, encoder in encoders if shapes.get(encoder.key) == encoder.shape), None)
    if found:
        if wanted and wanted != found:
            raise CheckpointError(
                f"{source.path} is {found.name} ({found.title}), not {wanted.name}.", "Leave {model} out."
            )
        return found
    if wanted:
        return wanted
    fits = {
        spec.name: sum(shapes.get(name) == tuple(tensor.shape) for name, tensor in _expected(spec).items())
        for spec in MODELS.values()
    }
    nearest = [spec for spec in MODELS.values() if fits[spec.name] == max(fits.values())]
    if len(nearest) == 1:
        return nearest[0]
    names = ", ".join(spec.name for spec in nearest)
    raise CheckpointError(
        f"{source.path} holds no known image encoder, so its model cannot be told.",
        f"Say which one it is as {{model}} ({names}).",
    )


def _grid(source: _Source, spec: ModelSpec) -> int:
    """Return the image tokens along one side: ViT encoders store a position for each."""
    positions = source.tensors.get(POSITIONS)
    if positions is None:
        return spec.architecture.grid
    shape = tuple(positions.shape)
    if len(shape) != 4 or shape[1] != shape[2] or not 1 <= shape[1] <= LARGEST_GRID:
        raise CheckpointError(
            f"{source.path} holds {source.called(POSITIONS)} of shape {shape}, which is no square grid.",
            "The file is damaged or of a changed architecture: fetch or save it again.",
        )
    return shape[1]


def _collect(source: _Source, spec: ModelSpec) -> dict[str, Tensor]:
    """Return the model's tensors as fp32 copies, or one error that lists everything wrong with them."""
    expected = _expected(spec)
    # Other parts, above all the image encoder, are neither read nor complained of.
    present = {name: tensor for name, tensor in source.tensors.items() if name.startswith(PARTS)}
    problems = [f"missing {name} {tuple(expected[name].shape)}" for name in expected.keys() - present]
    problems += [f"unknown {source.called(name)} {tuple(present[name].shape)}" for name in present.keys() - expected]
    state = {}
    for name in sorted(expected.keys() & present):
        if problem := _problem(present[name], expected[name]):
            problems.append(f"{source.called(name)} {problem}")
        else:
            state[name] = present[name].to(torch.float32, copy=True)  # off the mapped file, which may go away
            if not state[name].isfinite().all():
                problems.append(f"{source.called(name)} holds NaN or Inf")
    if problems:
        listed = "; ".join(sorted(problems)[:LISTED])  # a foreign file has hundreds
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        count = f"{len(problems)} tensors do not fit" if len(problems) > 1 else "1 tensor does not fit"
        raise CheckpointError(
            f"{source.path} is nearest to {spec.name} ({spec.title}) but {count}: {listed}{more}.",
            "The file is damaged or of a changed architecture: fetch or save it again.",
        )
    return state


def _problem(tensor: Tensor, expected: Tensor) -> str:
    """Return what keeps a tensor from being the expected one, graver faults first; empty where nothing does."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return "is sparse or without data"
    if tensor.shape != expected.shape:
        return f"has shape {tuple(tensor.shape)}, not {tuple(expected.shape)}"
    if not tensor.is_floating_point():
        return f"is {str(tensor.dtype).removeprefix('torch.')}, not floating point"
    return ""


def _weights_digest(decoder: SamDecoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(decoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
