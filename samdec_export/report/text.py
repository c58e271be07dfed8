"""A document as a few lines of plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from samdec_export.report.document import Document
from samdec_export.report.figures import size
from samdec_export.report.views import closest, failed, headline, usage

__all__ = ["to_lines"]

SHOWN = 5


def to_lines(document: Document) -> Iterator[str]:
    """Yield the verdict, what breaks or comes nearest to a threshold, and the artifacts."""
    yield f"{'PASSED' if document.passed else 'FAILED'}: {headline(document)}"
    broken = failed(document)
    yield from (f"  {verdict.sentence}" for verdict in broken[:SHOWN])
    if len(broken) > SHOWN:
        yield f"  and {len(broken) - SHOWN} more"
    for verdict in closest(document, SHOWN) if document.passed else ():
        where = ", ".join(part for part in (verdict.artifact, verdict.output, verdict.case) if part)
        yield f"  {usage(verdict) or 0.0:>7.1%} of {verdict.threshold} used by {where}"
    for artifact in document.artifacts:
        here = f"{artifact.status} ({artifact.reason})" if artifact.reason else artifact.status
        yield f"{artifact.name}  {artifact.precision}, {size(artifact.bytes)}, {here}"
