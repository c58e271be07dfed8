"""Files of named tensors: PyTorch archives, safetensors, and Hugging Face folders of either.

Nothing in a file is run: PyTorch's unpickler is restricted to tensors. The kind is recognised by content, not by name.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from samdec_export.core.errors import CheckpointError
from samdec_export.models.checkpoint_path import resolve_checkpoint, shards_of

__all__ = ["TensorFile", "open_tensors"]

WRAPPERS = ("model", "state_dict")
"""Keys under which trainers put the weights beside their own state."""

LFS_POINTER = b"version https://git-lfs"

PICKLE = b"\x80"
"""How a pickle begins, and so a PyTorch file from before 2020."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Tensors by name, still on disk where the format allows it, and the file that they are in.

    Where they are spread over several files, `path` is the index and `shards` are those files.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    shards: tuple[Path, ...] = ()


def open_tensors(path: Path) -> TensorFile:
    """Open a checkpoint file, a Hugging Face folder or its index of shards.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds something else.
    """
    try:
        file = resolve_checkpoint(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", "Check the path given as {checkpoint}."
        ) from error
    shards = shards_of(file)
    return _open_shards(file, shards) if shards else TensorFile(file, _read(file))


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with file.open("rb") as stream:
            head = stream.read(len(LFS_POINTER))
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read: {error.strerror}.", "Check the path given as {checkpoint}."
        ) from error
    if not head:
        raise CheckpointError(f"{file} is empty.", "Fetch or save it again.")
    if head == LFS_POINTER:
        raise CheckpointError(f"{file} is a Git LFS pointer, not the file itself.", "Fetch it: git lfs pull.")
    return _unwrap(file, _load_safetensors(file) if head[8:9] == b"{" else _load_torch(file, head))


def _open_shards(index: Path, shards: tuple[Path, ...]) -> TensorFile:
    return TensorFile(index, {name: tensor for shard in shards for name, tensor in _read(shard).items()}, shards)


def _load_safetensors(file: Path) -> Any:
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{file} is a safetensors file that cannot be read: {_first_line(error)}.",
            "It is truncated or damaged: fetch or save it again.",
        ) from error


def _load_torch(file: Path, head: bytes) -> Any:
    is_archive = zipfile.is_zipfile(file)
    if head.startswith(b"PK") and not is_archive:
        raise CheckpointError(f"{file} is truncated: the end of its archive is missing.", "Fetch or save it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: the errors say what matters
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except Exception as error:  # torch.load raises anything from EOFError to UnicodeDecodeError on damaged input
        if isinstance(error, pickle.UnpicklingError) and (is_archive or head.startswith(PICKLE)):
            raise CheckpointError(
                f"{file} holds Python objects besides tensors, or is damaged; nothing in it was run.",
                "Save the bare state dict instead: torch.save(model.state_dict(), ...).",
            ) from error
        raise CheckpointError(
            f"{file} is not a checkpoint: neither a PyTorch archive nor safetensors.",
            "Name a .pt, .pth or .safetensors file, or a Hugging Face folder.",
        ) from error


def _unwrap(file: Path, content: Any) -> Mapping[str, Tensor]:
    if isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
        tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(
        f"{file} holds no tensors by name, but an object of type {type(content).__name__}.",
        "Save the bare state dict: torch.save(model.state_dict(), ...).",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
