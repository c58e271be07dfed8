from __future__ import annotations

import functools
import gc
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from documents import break_weights, build
from numpy.typing import NDArray
from shared import everyones, made_once
from traces import sharing_traces

from samdec_export import api
from samdec_export.core.options import GraphOptions
from samdec_export.core.packages import tool_versions
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.precision.options import Conversion
from samdec_export.report.document import Document

GOLDEN = Path(__file__).parent / "golden"

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Export: TypeAlias = Callable[..., api.Exported]
Typed: TypeAlias = Callable[..., Path]


def assert_close(found: Any, expected: Any, atol: float) -> None:
    """Every element within `atol`; same shape; NaN is never close."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=atol, equal_nan=False)


torch.set_num_threads(1)  # the suite runs in two processes on two cores
gc.freeze()  # the libraries that were imported are no garbage: not to be looked through again and again
gc.set_threshold(50_000, 20, 20)

LONGEST = (
    *("test_build_matrix", "test_fullsize", "test_convert", "test_flow", "test_export", "test_tensorrt"),
    *("test_commands", "test_face", "test_arrangements", "test_toy"),
)
"""Files that take longest, which are begun first: a worker that begins one at the end leaves the other idle."""


def pytest_report_header() -> str:
    packages = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13")
    versions = tool_versions(*packages)
    return f"Python {platform.python_version()}, " + ", ".join(f"{p} {versions.get(p, '-')}" for p in packages)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured and recorded as `measured`, a line each."""
    reports = terminalreporter.stats.get("passed", [])
    lines = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(str(line))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `scripts/test` keeps that order among its workers."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trace each graph once, whichever worker or process asks for it."""
    with sharing_traces(everyones(tmp_path_factory)):
        yield


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Python in a process of its own, with warnings as errors, which takes graphs that were traced before.

    `python -m samdec_export` as it is, which traces anew, is `command_line.COMMAND`.
    """
    launcher = Path(__file__).with_name("with_traces.py")
    return [sys.executable, "-W", "error", str(launcher), str(everyones(tmp_path_factory))]


@pytest.fixture
def traced_afresh(traces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace whatever was traced before."""
    monkeypatch.setattr(torch.onnx, "export", functools.partial(torch.onnx.export))


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return load_model(None, "sam_tiny")


@pytest.fixture(scope="session")
def upstream_golden() -> Arrays:
    return dict(np.load(GOLDEN / "segment_anything.npz"))


@pytest.fixture(scope="session")
def huggingface_golden() -> Arrays:
    return dict(np.load(GOLDEN / "huggingface.npz"))


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export sam_tiny, each set of options once: an export takes seconds."""

    @functools.cache
    def cached(opset: int = 20, **options: Any) -> api.Exported:
        asked = GraphOptions(opset=opset, **options)

        def make(out: Path) -> api.Exported:
            return api.export(None, "sam_tiny", options=asked, out=out, validate=False)

        folder, made = made_once(tmp_path_factory, f"export {asked}", make)
        return replace(made, artifact=replace(made.artifact, path=folder / made.artifact.path.name))

    return cached


@pytest.fixture(scope="session")
def typed(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """The file of a tiny export in a precision, each made once."""

    @functools.cache
    def cached(precision: Any, **options: Any) -> Path:
        source = export(**options).artifact.path
        if precision == "fp32":
            return source

        def make(out: Path) -> str:
            done = api.convert(source, Conversion(precision=precision), out=out, validate=False)
            return done.artifact.path.name

        folder, name = made_once(tmp_path_factory, f"{precision} {GraphOptions(**options)}", make)
        return folder / name

    def asked(precision: str = "fp32", **options: Any) -> Path:
        return cached(precision, **options)

    return asked


@pytest.fixture(scope="session")
def passing(typed: Typed) -> Document:
    """The document of a run in which everything holds."""
    return build(typed(), typed("fp16"))


@pytest.fixture(scope="session")
def failing(typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> Document:
    """The document of a run of a file with a wrong weight, beside one that is right."""
    broken = tmp_path_factory.mktemp("broken") / "broken.onnx"
    break_weights(typed(), broken, 1.2)
    return build(broken, typed("fp16"))
