"""Checkpoints on disk: PyTorch archives, safetensors, and Hugging Face folders of either. They are found without torch.

Nothing in a file is run: PyTorch's unpickler is restricted to tensors. The kind is recognised by content, not by name.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["checkpoint_digest", "open_tensors", "resolve_checkpoint"]

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that Hugging Face gives the weights in a model's folder, in order of preference."""

INDEX = ".index.json"
"""Added to those names where the weights are in several files: which tensor is in which."""

WRAPPERS = ("model", "state_dict")
"""Keys under which trainers put the weights beside their own state."""

LFS_POINTER = b"version https://git-lfs"

PICKLE = b"\x80"
"""How a pickle begins, and so a PyTorch file from before 2020."""


def resolve_checkpoint(path: Path) -> Path:
    """Return the file itself, or the one with the weights in a Hugging Face folder, or the index of several such files.

    Raises:
        CheckpointError: There is none.
        OSError: The path cannot be looked at.
    """
    if path.is_dir():
        names = (*FOLDER_FILES, *(name + INDEX for name in FOLDER_FILES))
        for name in names:
            if (path / name).is_file():
                return path / name
        raise CheckpointError(
            f"{path} is a folder without {', '.join(names[:-1])} or {names[-1]}.",
            "Name a checkpoint file, or a folder that save_pretrained wrote.",
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist.", "Check the path given as {checkpoint}.")
    if not path.is_file():
        raise CheckpointError(f"{path} is a device or a pipe, not a file.", "Name a checkpoint file.")
    return path


def _shards_of(file: Path) -> tuple[Path, ...]:
    """Return the files that an index names, all beside it whatever path it gives; none where `file` is no index."""
    if not file.name.endswith(INDEX):
        return ()
    try:
        names = json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()
        shards = tuple(file.with_name(Path(name).name) for name in sorted({*names}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is no index of shards, or is damaged.", "Fetch or save it again.") from error
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise CheckpointError(
            f"{file} names {len(shards)} files, and {len(missing)} are not beside it: {', '.join(missing[:3])}.",
            "Fetch or save the whole folder again.",
        )
    return shards


def checkpoint_digest(file: Path, sha256: Callable[[Path], str]) -> str:
    """Return the SHA-256 of a file, by `sha256`; of shards that of the list that `sha256sum <index> <shards>` prints.

    Raises:
        CheckpointError: The index is damaged, or a file that it names is missing.
    """
    shards = _shards_of(file)
    if not shards:
        return sha256(file)
    lines = (f"{sha256(path)}  {path.name}\n" for path in (file, *shards))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def open_tensors(path: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file or index of a checkpoint, and its tensors, still on disk where the format allows it.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds something else.
    """
    try:
        file = resolve_checkpoint(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", "Check the path given as {checkpoint}."
        ) from error
    parts = _shards_of(file) or (file,)
    return file, {name: tensor for part in parts for name, tensor in _read(part).items()}


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


def _load_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CheckpointError(
            f"{file} is a safetensors file that cannot be read: {reason}.",
            "It is truncated or damaged: fetch or save it again.",
        ) from error


def _load_torch(file: Path, head: bytes) -> Any:
    import torch

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
    from torch import Tensor

    if isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
        tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(
        f"{file} holds no tensors by name, but an object of type {type(content).__name__}.",
        "Save the bare state dict: torch.save(model.state_dict(), ...).",
    )
