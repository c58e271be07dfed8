"""A run from a config: every stage, the verdicts and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from samdec_export.core.files import FilePath, optional_path
from samdec_export.run.config import RunConfig
from samdec_export.run.config_file import (
    as_yaml,
    command_for,
    load_config,
    parse_setting,
    schema_text,
    spelled_as_keys,
)
from samdec_export.run.flow import Ran
from samdec_export.run.flow import run as run_flow

__all__ = ["config", "config_schema", "config_text", "run"]

Settings: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any] | str]
"""Keys such as `gate.fp16.iou` and their values; in a sequence, also texts such as `gate.fp16.iou=0.95`."""


def config(file: FilePath | None = None, settings: Settings = ()) -> RunConfig:
    """Read the config of a run.

    Args:
        file: A YAML file; None for the usual values.
        settings: Keys such as `gate.fp16.iou` and their values, which go over the file in order.

    Raises:
        UsageError: The file cannot be read, or a key or a value is wrong.
    """
    return load_config(optional_path(file), _pairs(settings))


def config_text(file: FilePath | None = None, settings: Settings = ()) -> str:
    """Return a config in full, with what it leaves out, as YAML that reads back.

    Args:
        file: A YAML file; None for the usual values.
        settings: Keys such as `gate.fp16.iou` and their values, which go over the file in order.

    Raises:
        UsageError: The file cannot be read, or a key or a value is wrong.
    """
    return as_yaml(config(file, settings))


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config."""
    schema: dict[str, Any] = json.loads(schema_text())
    return schema


def run(file: FilePath | None = None, settings: Settings = (), *, rehash: bool = False) -> Ran:
    """Make, compare and report everything that a config asks for; unchanged stages are skipped.

    Args:
        file: A YAML file; None for the usual values.
        settings: Keys such as `gate.fp16.iou` and their values, which go over the file in order.
        rehash: Read the checkpoint again although its size and time are as before.

    Raises:
        SamdecError: As the stages say. Done stages are recorded, and the next run resumes after them.
    """
    path, pairs = optional_path(file), _pairs(settings)
    with spelled_as_keys():
        return run_flow(load_config(path, pairs), command_for(path, pairs), rehash=rehash)


def _pairs(settings: Settings) -> list[tuple[str, Any]]:
    given = settings.items() if isinstance(settings, Mapping) else settings
    return [parse_setting(item) if isinstance(item, str) else item for item in given]
