"""What the stages of one run share: the config, the checkpoint's hash, and its weights once they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.machine import Machine, glance
from samdec_export.core import interrupts
from samdec_export.core.errors import CheckpointError, UsageError
from samdec_export.core.feeds import FeedsCache
from samdec_export.core.files import sha256
from samdec_export.core.packages import tool_versions
from samdec_export.models.tensor_files import checkpoint_digest, resolve_checkpoint
from samdec_export.run.config import RunConfig
from samdec_export.run.ledger import FileHashes, code_hash

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel

__all__ = ["Job", "Weights", "hash_of"]


class Weights:
    """The decoder of a checkpoint, read when a stage needs it and once for all of them."""

    def __init__(self, checkpoint: Path | None, model: str | None, digest: str | None) -> None:
        self.checkpoint, self.model, self.digest = checkpoint, model, digest

    @cached_property
    def loaded(self) -> LoadedModel:
        """Return the decoder.

        Raises:
            CheckpointError: It cannot be read, or is not the file that was hashed.
        """
        with interrupts.deferred():
            from samdec_export.models.checkpoint import load_model

        loaded = load_model(self.checkpoint, self.model)
        if self.checkpoint is not None and loaded.checkpoint.sha256 != self.digest:
            raise CheckpointError(
                f"{self.checkpoint} is not the file that it was: its SHA-256 changed, its size and time did not.",
                "Run again with {rehash}, when nothing writes to it any more.",
            )
        return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run.

    Args:
        config: What was asked for.
        digest: SHA-256 of the checkpoint; None for embedded weights.
        weights: The checkpoint's.
        machine: What engines can be built with and run on here.
        drawn: Inputs that several stages run.
    """

    config: RunConfig
    digest: str | None
    weights: Weights
    machine: Machine
    drawn: FeedsCache = field(default_factory=FeedsCache)

    @classmethod
    def of(cls, config: RunConfig, hashes: FileHashes) -> Job:
        """Return the job of a config.

        Raises:
            CheckpointError: There is no such checkpoint, or it cannot be read.
        """
        checkpoint, digest = config.checkpoint, None
        try:
            if checkpoint:
                digest = checkpoint_digest(resolve_checkpoint(checkpoint), hashes.of)
        except OSError as error:
            raise CheckpointError(
                f"{checkpoint} cannot be read: {error.strerror}.", "Check the path given as {checkpoint}."
            ) from error
        weights = Weights(checkpoint, config.model, digest)
        return cls(config=config, digest=digest, weights=weights, machine=glance())

    def inputs(self, packages: Iterable[str], own: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a stage depends on: its own inputs, this package's code, and the packages that do its work."""
        return {**own, "code": code_hash(), "packages": tool_versions(*packages)}


def hash_of(path: Path | None, key: str) -> str | None:
    """Return the hash of a small file that the config names; None where it names none.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return sha256(path) if path else None
    except OSError as error:
        raise UsageError(f"{key}: {path} cannot be read: {error.strerror}.", "Check the path.") from error
