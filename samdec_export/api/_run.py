"""A run from a config: every stage, the verdicts and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samdec_export.core.files import FilePath, optional_path
from samdec_export.run.config import RunConfig
from samdec_export.run.config_file import command_for, load_config
from samdec_export.run.flow import Ran
from samdec_export.run.flow import run as run_flow

__all__ = ["config", "run"]


def config(file: FilePath | None = None, settings: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()) -> RunConfig:
    """Read the config of a run.

    Args:
        file: A YAML file; None for the usual values.
        settings: Keys such as `gate.fp16.iou` and their values, which go over the file in order.

    Raises:
        UsageError: The file cannot be read, or a key or a value is wrong.
    """
    return load_config(optional_path(file), _pairs(settings))


def run(
    file: FilePath | None = None,
    settings: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    *,
    rehash: bool = False,
) -> Ran:
    """Make, compare and report everything that a config asks for; unchanged stages are skipped.

    Args:
        file: A YAML file; None for the usual values.
        settings: Keys such as `gate.fp16.iou` and their values, which go over the file in order.
        rehash: Read the checkpoint again although its size and time are as before.

    Raises:
        SamdecError: As the stages say. Done stages are recorded, and the next run resumes after them.
    """
    path = optional_path(file)
    return run_flow(load_config(path, _pairs(settings)), command_for(path, _pairs(settings)), rehash=rehash)


def _pairs(settings: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [*(settings.items() if isinstance(settings, Mapping) else settings)]
