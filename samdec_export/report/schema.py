"""The JSON Schema of the document. The file beside this module is the promise; the data classes must keep it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from samdec_export.report.document import SCHEMA_VERSION, Document

__all__ = ["SCHEMA_FILE", "derive_schema", "read_schema"]

SCHEMA_FILE = f"report.v{SCHEMA_VERSION}.schema.json"


def read_schema() -> dict[str, Any]:
    """Return the published schema of this version."""
    schema: dict[str, Any] = json.loads(files("samdec_export.report").joinpath(SCHEMA_FILE).read_text("utf-8"))
    return schema


def derive_schema() -> dict[str, Any]:
    """Return the schema that the data classes have: what the published one must be."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Document).json_schema()
    schema["required"] = ["schema_version", *schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:samdec-export:report:{SCHEMA_VERSION}",
        **schema,
    }
