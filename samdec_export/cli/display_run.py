"""The result of a run on stdout, for people: the verdict first, then files, what failed, and where the report is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from samdec_export.cli import terminal

if TYPE_CHECKING:
    from samdec_export.report.document import ArtifactEntry, Document
    from samdec_export.run.flow import Ran

__all__ = ["ran"]

COLOURS = {"validated": "green", "failed": "red", "not run": "yellow"}


def ran(done: Ran) -> None:
    """The verdict, a row for each artifact, the failed thresholds, and where everything is."""
    console, document = terminal.console(), done.document
    console.print(document.headline, style="bold green" if document.passed else "bold red")
    console.print(_artifacts(document))
    _failures(console, document)
    for note in document.notes:
        console.print(f"Note: {note}")
    skipped = sum(entry.reused for entry in done.stages)
    console.print(f"{len(done.stages)} stages, {skipped} of them unchanged and not run again.")
    console.print(f"Report: {done.out / 'report.html'} (also .md, .json, and .xml for JUnit)")


def _artifacts(document: Document) -> Table:
    table = Table("artifact", "precision", "size", "status")
    for artifact in document.artifacts:
        table.add_row(artifact.file, artifact.precision, terminal.size(artifact.bytes), _status(artifact))
    return table


def _status(artifact: ArtifactEntry) -> str:
    built = "built, " if artifact.status == "not run" else ""
    return f"{built}{artifact.status}" + (f": {artifact.reason}" if artifact.reason else "")


def _failures(console: Console, document: Document) -> None:
    for verdict in document.verdicts:
        if not verdict.passed:
            console.print(f"FAILED {verdict.threshold}: {verdict.sentence}", style="red")
