"""A run's report, read and rendered again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.report.document import Document
from samdec_export.report.render import announce, read, schema, write
from samdec_export.report.text import to_lines

__all__ = ["Reported", "report", "report_schema"]


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


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of a report."""
    return schema()
