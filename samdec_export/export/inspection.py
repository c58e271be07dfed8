"""What an ONNX file holds, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdec_export.core.artifact import Record
from samdec_export.core.errors import NoRecordError
from samdec_export.core.files import FilePath, as_path
from samdec_export.export.cost import product_shares
from samdec_export.export.onnx_file import GraphSummary, describe, open_artifact

__all__ = ["Inspected", "inspect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What an ONNX file holds; `record` is None where samdec-export did not write it.

    `shares` is the part of the operations of matrix products in each type, empty without a record.
    """

    path: Path
    summary: GraphSummary
    record: Record | None
    shares: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return graph and record as JSON."""
        record = self.record.to_json() if self.record else None
        graph = self.summary.to_json()
        return {"path": str(self.path), "graph": graph, "matrix_products": dict(self.shares), "record": record}


def inspect(file: FilePath) -> Inspected:
    """Return what an ONNX file holds, and how it was made if samdec-export made it.

    Raises:
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    path = as_path(file)
    summary = describe(path)
    try:
        record = open_artifact(path).record
    except NoRecordError:
        return Inspected(path=path, summary=summary, record=None, shares={})
    return Inspected(path=path, summary=summary, record=record, shares=product_shares(path, record.signature))
