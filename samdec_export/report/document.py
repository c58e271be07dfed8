"""The data of a report: plain values only, so that a file of it can be rendered again anywhere.

Every rendering is made of a `Document` and nothing else. Numbers that are infinite, which JSON lacks, are None.

Within a schema version the document only grows: a reader ignores what it does not know, and a field that was added
has a default here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from samdec_export.core.errors import UsageError
from samdec_export.core.plain import to_plain
from samdec_export.core.results import MaskPair
from samdec_export.report.parts import ArtifactEntry, Comparison, Latency, Provenance, RangeRow, Stage, Verdict

__all__ = ["SCHEMA_VERSION", "Document"]

SCHEMA_VERSION: Final = 2

ADVICE = "Name the report.json of a run."


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Everything a run has to say.

    Args:
        schema_version: Of this document.
        passed: The verdict.
        headline: The verdict in one sentence; renderings put `FAILED` or `PASSED` before it themselves.
        created: When, ISO 8601 with its time zone.
        title: What the report is of, in a few words.
        model: Name in the registry.
        graph: Graph contract.
        command: What runs it all again.
        provenance: What it was made from, with and on.
        stages: In the order they ran.
        artifacts: In the order they were made.
        comparisons: Every comparison.
        verdicts: Every threshold that was applied.
        worst_masks: The worst first.
        ranges: In graph order.
        latency: None where nothing was timed.
        notes: What could not be compared or run, and why.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    passed: bool
    headline: str
    created: str
    title: str
    model: str
    graph: str
    command: str
    provenance: Provenance
    stages: tuple[Stage, ...]
    artifacts: tuple[ArtifactEntry, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]
    worst_masks: tuple[MaskPair, ...] = ()
    ranges: tuple[RangeRow, ...] = ()
    latency: Latency | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_json(cls, data: object) -> Document:
        """Read what `to_json` wrote; what is not known is left out.

        Raises:
            UsageError: `data` is no such object, or is of another schema version.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            text = json.dumps(_of_this_version(data), allow_nan=False)  # arrays of JSON are what tuples are read from
            return TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise UsageError(f"This is no report of samdec-export: {where}: {first['msg']}.", ADVICE) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"This is no report of samdec-export: {error}.", ADVICE) from error


def _of_this_version(data: object) -> dict[str, Any]:
    """Return a document of this schema version, made of an earlier one where it has to be."""
    if not isinstance(data, dict) or "schema_version" not in data:
        raise UsageError("This is no report of samdec-export: no JSON object with a schema_version.", ADVICE)
    if data["schema_version"] == 1:
        return {**data, "schema_version": SCHEMA_VERSION, "comparisons": _upgraded(data.get("comparisons"))}
    if data["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"The report has schema version {data['schema_version']!r}, and this samdec-export reads {SCHEMA_VERSION}.",
            "Read it with the version of samdec-export that wrote it.",
        )
    return data


def _upgraded(comparisons: Any) -> Any:
    """Name the limits of version 1 as the gate does: `relative` is `logits`, `scores` is `iou_predictions`."""
    try:
        return [
            {
                **comparison,
                "limits": {
                    **limits,
                    "logits": limits["relative"],
                    "iou_predictions": limits["relative"] if limits.get("scores") is None else limits["scores"],
                },
            }
            for comparison in comparisons
            for limits in (comparison["limits"],)
        ]
    except (AttributeError, KeyError, TypeError):
        return comparisons  # which the reader refuses
