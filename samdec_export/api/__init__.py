"""The stages from Python: what the commands do, with results as values instead of text.

    from samdec_export import api

    api.export("sam_b.pt", out="artifacts").artifact.path

Each function is one command and returns the frozen dataclass that the command prints; `to_json()` of it is what the
command gives as JSON. Expected failures are raised as subclasses of `SamdecError`. A failed validation is a result, not
an exception: `require()` makes one of it. Nothing is printed, and progress is logged under `samdec_export`. Names are
looked up when they are first used: importing this module imports neither torch nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.bench.options import BenchOptions
from samdec_export.core.errors import SamdecError, UsageError, ValidationError
from samdec_export.core.options import GraphOptions
from samdec_export.parity.options import CaseOptions
from samdec_export.precision.options import Conversion, ConvertOptions
from samdec_export.serving.options import ServingOptions

if TYPE_CHECKING:
    from samdec_export.api._engine import build_engine
    from samdec_export.api._make import Converted, Exported, convert, export
    from samdec_export.api._measure import bench, ranges
    from samdec_export.api._run import Reported, config, config_text, report, run
    from samdec_export.api._validate import golden, validate
    from samdec_export.backends.doctor import Diagnosis
    from samdec_export.backends.doctor import diagnose as doctor
    from samdec_export.backends.tensorrt.engine import EngineBuilt
    from samdec_export.backends.tensorrt.index import EngineEntry
    from samdec_export.backends.tensorrt.index import list_engines as engines
    from samdec_export.bench.side_by_side import Benchmarked
    from samdec_export.core.results import CaseResult, ValidationResult
    from samdec_export.export.inspection import Inspected, inspect
    from samdec_export.export.onnx_file import GraphSummary
    from samdec_export.models.registry import ModelSpec
    from samdec_export.models.registry import list_models as models
    from samdec_export.parity.comparisons import Validated
    from samdec_export.parity.record import Recorded, record
    from samdec_export.precision.audit import Audited
    from samdec_export.report.render import schema as report_schema
    from samdec_export.run.config_file import config_schema
    from samdec_export.run.flow import Ran
    from samdec_export.serving.bundle import Bundled, bundle

__all__ = [
    "Audited",
    "BenchOptions",
    "Benchmarked",
    "BuildOptions",
    "Bundled",
    "CaseOptions",
    "CaseResult",
    "Conversion",
    "ConvertOptions",
    "Converted",
    "Diagnosis",
    "EngineBuilt",
    "EngineEntry",
    "Exported",
    "GraphOptions",
    "GraphSummary",
    "Inspected",
    "ModelSpec",
    "Ran",
    "Recorded",
    "Reported",
    "SamdecError",
    "ServingOptions",
    "UsageError",
    "Validated",
    "ValidationError",
    "ValidationResult",
    "bench",
    "build_engine",
    "bundle",
    "config",
    "config_schema",
    "config_text",
    "convert",
    "doctor",
    "engines",
    "export",
    "golden",
    "inspect",
    "models",
    "ranges",
    "record",
    "report",
    "report_schema",
    "run",
    "validate",
]

WHERE = {
    name: module
    for module, names in {
        "api._engine": ["build_engine"],
        "api._make": ["Converted", "Exported", "convert", "export"],
        "api._measure": ["bench", "ranges"],
        "api._run": ["Reported", "config", "config_text", "report", "run"],
        "api._validate": ["golden", "validate"],
        "backends.doctor": ["Diagnosis"],
        "backends.tensorrt.engine": ["EngineBuilt"],
        "backends.tensorrt.index": ["EngineEntry"],
        "bench.side_by_side": ["Benchmarked"],
        "core.results": ["CaseResult", "ValidationResult"],
        "export.inspection": ["Inspected", "inspect"],
        "export.onnx_file": ["GraphSummary"],
        "models.registry": ["ModelSpec"],
        "parity.comparisons": ["Validated"],
        "parity.record": ["Recorded", "record"],
        "precision.audit": ["Audited"],
        "run.config_file": ["config_schema"],
        "run.flow": ["Ran"],
        "serving.bundle": ["Bundled", "bundle"],
    }.items()
    for name in names
} | {
    "doctor": "backends.doctor:diagnose",
    "engines": "backends.tensorrt.index:list_engines",
    "models": "models.registry:list_models",
    "report_schema": "report.render:schema",
}
"""Where each name is defined, and what it is called there if not the same."""


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, called = WHERE[name].partition(":")
    globals()[name] = value = getattr(import_module(f"samdec_export.{module}"), called or name)
    return value
