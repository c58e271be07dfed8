"""The flow of a report: a document read or given, rendered into files, and announced where a CI listens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from samdec_export.core.errors import UsageError
from samdec_export.core.files import check_target, write_text

if TYPE_CHECKING:
    from samdec_export.report.document import Document

__all__ = ["SCHEMA_FILE", "ReportFormat", "read", "render", "schema", "write"]

SCHEMA_FILE = "report.v2.schema.json"

ReportFormat: TypeAlias = Literal["json", "html", "markdown", "junit"]


def read(path: Path) -> Document:
    """Return the document in a file.

    Raises:
        UsageError: There is no such file, it cannot be read, or it is no report of this schema version.
    """
    from samdec_export.report.document import Document

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_int=_count)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.", "Name the report.json of a run.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON.", "Name the report.json of a run.") from error
    try:
        return Document.from_json(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.advice) from error


def _count(digits: str) -> int:
    """Return a whole number, and refuse one beyond 64 bits: it counts nothing that exists."""
    if abs(number := int(digits)) >= 1 << 63:
        raise ValueError(f"{digits[:20]}... is no count")
    return number


def render(document: Document, wanted: ReportFormat) -> str:
    """Return the text of one rendering."""
    match wanted:
        case "json":
            return json.dumps(document.to_json(), indent=2) + "\n"
        case "html":
            from samdec_export.report.html import to_html

            return to_html(document)
        case "markdown":
            from samdec_export.report.markdown import to_markdown

            return to_markdown(document)
        case "junit":
            from samdec_export.report.junit import to_junit

            return to_junit(document)


def write(document: Document, targets: Mapping[ReportFormat, Path | None], source: Path | None = None) -> list[Path]:
    """Write renderings, each file whole or not at all; nothing is written before all of them are made.

    None of them may replace `source`, the file that the document was read from.

    Raises:
        UsageError, GraphError: A file cannot be written.
    """
    wanted = [(kind, path) for kind, path in targets.items() if path]
    for _, path in wanted:
        check_target(path, (source,))
    texts = [(path, render(document, kind)) for kind, path in wanted]
    for path, text in texts:
        write_text(path, text)
    return [path for path, _ in texts]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document; its file is the promise that the data classes must keep."""
    found: dict[str, Any] = json.loads(files("samdec_export.report").joinpath(SCHEMA_FILE).read_text("utf-8"))
    return found
