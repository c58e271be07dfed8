"""A run from a config: every stage, the verdicts and the report; and its report rendered again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from samdec_export.core.errors import SamdecError
from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.report.document import Document
from samdec_export.report.github import announce
from samdec_export.report.render import read, write
from samdec_export.report.views import to_lines
from samdec_export.run.config import RunConfig, key_of
from samdec_export.run.config_file import (
    as_yaml,
    command_for,
    load_config,
    parse_setting,
)
from samdec_export.run.flow import Ran
from samdec_export.run.flow import run as run_flow

__all__ = ["Reported", "config", "config_text", "report", "run"]

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
    """Return a config in full, with what it leaves out, as YAML that reads back; `file` and `settings` as of `config`.

    Raises:
        UsageError: The file cannot be read, or a key or a value is wrong.
    """
    return as_yaml(config(file, settings))


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
    try:
        return run_flow(load_config(path, pairs), command_for(path, pairs), rehash=rehash)
    except SamdecError as error:
        error.spell(key_of)
        raise


def _pairs(settings: Settings) -> list[tuple[str, Any]]:
    given = settings.items() if isinstance(settings, Mapping) else settings
    return [parse_setting(item) if isinstance(item, str) else item for item in given]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report, the files that it was rendered to, and the workflow commands that GitHub Actions reads on stderr."""

    document: Document
    written: tuple[Path, ...]
    workflow_commands: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the verdict, what breaks or comes nearest to a threshold, and the artifacts, as plain text."""
        return tuple(to_lines(self.document))

    def to_json(self) -> dict[str, Any]:
        """Return the verdict, its headline and the files."""
        return {
            "passed": self.document.passed,
            "headline": self.document.headline,
            "written": [*map(str, self.written)],
        }


def report(
    file: FilePath,
    *,
    html: FilePath | None = None,
    markdown: FilePath | None = None,
    junit: FilePath | None = None,
    github: bool = False,
) -> Reported:
    """Read the report of a run, and render it again.

    Args:
        file: The report.json of a run.
        html: One HTML page to write.
        markdown: Markdown to write, for a pull request.
        junit: JUnit XML to write.
        github: In GitHub Actions, add to the step's summary and return workflow commands.

    Raises:
        UsageError: The file is no report, or a rendering cannot be written.
    """
    path = as_path(file)
    document = read(path)
    targets = {"html": optional_path(html), "markdown": optional_path(markdown), "junit": optional_path(junit)}
    written = write(document, targets, path)  # type: ignore[arg-type]
    commands = announce(document, os.environ) if github else []
    return Reported(document=document, written=tuple(written), workflow_commands=tuple(commands))
