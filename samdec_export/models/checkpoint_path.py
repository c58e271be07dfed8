"""Which file a checkpoint is, told without torch."""

from __future__ import annotations

from pathlib import Path

from samdec_export.errors import CheckpointError

__all__ = ["INDEX", "resolve_checkpoint"]

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that Hugging Face gives the weights in a model's folder, in order of preference."""

INDEX = ".index.json"
"""Added to those names where the weights are in several files: which tensor is in which."""


def resolve_checkpoint(path: Path) -> Path:
    """The file itself, or the one with the weights in a Hugging Face folder, or the index of several such files.

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
        raise CheckpointError(f"{path} does not exist.", "Check the path given with --ckpt.")
    if not path.is_file():
        raise CheckpointError(f"{path} is a device or a pipe, not a file.", "Name a checkpoint file.")
    return path
