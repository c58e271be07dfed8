"""What the stages of one run share: the config, the files that it names, and the weights once they are needed."""

from __future__ import annotations

import json
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
from samdec_export.report.parts import Baseline
from samdec_export.run.config import RunConfig
from samdec_export.run.ledger import FileHashes, code_hash
from samdec_export.run.results import timing_of

if TYPE_CHECKING:
    from samdec_export.models.checkpoint import LoadedModel

__all__ = ["Job", "hash_of", "read_baseline"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: `digest` is the SHA-256 of its checkpoint, None for embedded weights; several stages run `drawn`."""

    config: RunConfig
    digest: str | None
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
        return cls(config=config, digest=digest, machine=glance())

    @cached_property
    def loaded(self) -> LoadedModel:
        """Return the decoder of the checkpoint, read when a stage needs it and once for all of them.

        Raises:
            CheckpointError: It cannot be read, or is not the file that was hashed.
        """
        with interrupts.deferred():
            from samdec_export.models.checkpoint import load_model

        checkpoint = self.config.checkpoint
        loaded = load_model(checkpoint, self.config.model)
        if checkpoint is not None and loaded.checkpoint.sha256 != self.digest:
            raise CheckpointError(
                f"{checkpoint} is not the file that it was: its SHA-256 changed, its size and time did not.",
                "Run again with {rehash}, when nothing writes to it any more.",
            )
        return loaded

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


def read_baseline(config: RunConfig) -> Baseline | None:
    """Return the recorded benchmark that the gate judges times against; None where it names none.

    Raises:
        UsageError: It cannot be read, is no benchmark, or was made with another number of threads.
    """
    if config.gate.latency is None:
        return None
    path = config.gate.latency.baseline
    key = f"gate.latency.baseline: {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        threads = data["threads"]
        recorded = Baseline(name=str(path), measurements=tuple(timing_of(item) for item in data["measurements"]))
    except OSError as error:
        raise UsageError(f"{key} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{key} is not a benchmark.",
            "Copy the bench.json of a run on this machine, and name the copy.",
        ) from error
    if threads != config.bench.threads:
        raise UsageError(
            f"{key} was measured with {threads} threads, and bench.threads is {config.bench.threads}.",
            "Measure both alike.",
        )
    return recorded
