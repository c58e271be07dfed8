"""Which files a checkpoint is, found without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from samdec_export.core.errors import CheckpointError

__all__ = ["checkpoint_digest", "resolve_checkpoint", "shards_of"]

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that Hugging Face gives the weights in a model's folder, in order of preference."""

INDEX = ".index.json"
"""Added to those names where the weights are in several files: which tensor is in which."""


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


def shards_of(file: Path) -> tuple[Path, ...]:
    """Return the files that an index names, all beside it whatever path it gives; none where `file` is no index.

    Raises:
        CheckpointError: The index is damaged, or a file is missing.
    """
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
    """Return the file's SHA-256; of shards that of the list which `sha256sum <index> <shards>` prints.

    Args:
        file: The checkpoint's file or index.
        sha256: How a file is hashed.

    Raises:
        CheckpointError: As `shards_of` says.
    """
    shards = shards_of(file)
    if not shards:
        return sha256(file)
    lines = (f"{sha256(path)}  {path.name}\n" for path in (file, *shards))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
