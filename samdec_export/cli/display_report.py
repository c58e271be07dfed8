"""A report on stdout, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from samdec_export.report.figures import size
from samdec_export.report.views import closest, failed, headline, usage

if TYPE_CHECKING:
    from samdec_export.report.document import Document

__all__ = ["reported"]

SHOWN = 5


def reported(document: Document, written: Sequence[Path] = ()) -> None:
    """The verdict, what breaks or comes nearest to a threshold, the artifacts, and the files that were written."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{'PASSED' if document.passed else 'FAILED'}: {headline(document)}")
    broken = failed(document)
    for verdict in broken[:SHOWN]:
        console.print(f"  {verdict.sentence}")
    if len(broken) > SHOWN:
        console.print(f"  and {len(broken) - SHOWN} more")
    for verdict in closest(document, SHOWN) if document.passed else ():
        where = ", ".join(part for part in (verdict.artifact, verdict.output, verdict.case) if part)
        console.print(f"  {usage(verdict) or 0.0:>7.1%} of {verdict.threshold} used by {where}")
    for artifact in document.artifacts:
        here = f"{artifact.status} ({artifact.reason})" if artifact.reason else artifact.status
        console.print(f"{artifact.name}  {artifact.precision}, {size(artifact.bytes)}, {here}")
    for path in written:
        console.print(f"Wrote {path}")
