"""The Python API: its names, its promises, and the example that the docs show."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run
from conftest import Export

from samdec_export import api
from samdec_export.models.checkpoint import load_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).parents[1] / "snippets" / "api_example.py"
"""A file of its own, so that `mypy --strict` checks what the docs show."""

FUNCTIONS = {
    "bench": "files checkpoint options plot",
    "build_engine": "file options checkpoint precision out",
    "bundle": "files wanted out",
    "config": "file settings",
    "config_schema": "",
    "config_text": "file settings",
    "convert": "file wanted checkpoint out feeds sweep validate",
    "doctor": "",
    "engines": "folder",
    "export": "checkpoint model options out sweep validate",
    "golden": "file polygraphy_inputs polygraphy_outputs",
    "inspect": "file",
    "models": "",
    "ranges": "file precision feeds case seed sweep plot",
    "record": "file checkpoint out feeds seed sweep keep_inputs",
    "report": "file html markdown junit github",
    "report_schema": "",
    "run": "file settings rehash",
    "validate": "file checkpoint golden outputs feeds case seed sweep provider",
}
CHOICES = {
    *("BenchOptions", "BuildOptions", "CaseOptions", "Conversion", "ConvertOptions", "GraphOptions", "ServingOptions"),
}
ERRORS = {"SamdecError", "UsageError", "ValidationError"}
RESULTS = {
    *("Audited", "Benchmarked", "Bundled", "CaseResult", "Converted", "Diagnosis", "EngineBuilt", "Exported"),
    *("GraphSummary", "Inspected", "EngineEntry", "ModelSpec", "Ran", "Recorded", "Reported", "Validated"),
    "ValidationResult",
}
COMMANDS = {"build_engine": "trt", "bundle": "bundle triton", "config_schema": "config schema", "export": "onnx"}
COMMANDS |= {"config_text": "config show", "report_schema": "report"}
"""Functions that are not called as their command; the others are."""


def test_the_public_names_change_only_on_purpose() -> None:
    assert {*api.__all__} == {*FUNCTIONS} | CHOICES | ERRORS | RESULTS
    assert [*api.__all__] == sorted(api.__all__)
    found = {name: " ".join(inspect.signature(getattr(api, name)).parameters) for name in FUNCTIONS}
    assert found == FUNCTIONS


def test_every_function_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for name in FUNCTIONS:
        assert f"`{name}`" in text
        document = inspect.getdoc(getattr(api, name))
        assert document is not None
        assert "Raises:" in document or not inspect.signature(getattr(api, name)).parameters


def test_every_command_has_a_function() -> None:
    words = run("--help").stdout
    commands = {*re.findall(r"^│ ([a-z]+) ", words, re.MULTILINE)}
    assert commands == {COMMANDS.get(name, name).split()[0] for name in FUNCTIONS}


def test_importing_is_silent_and_light() -> None:
    code = "import samdec_export, sys; before = len(sys.modules); import samdec_export.api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "numpy", "polygraphy"} & set(done.stdout.split())
    assert not done.stderr
    root = "import samdec_export, sys; print(*(name for name in sys.modules if name.startswith('samdec')))"
    done = subprocess.run([sys.executable, "-c", root], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["samdec_export"]


def test_the_docs_show_the_example_that_is_tested() -> None:
    (shown, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert shown == EXAMPLE.read_text()
    assert len(shown.splitlines()) <= 12


def test_the_example_runs(python: list[str], tmp_path: Path) -> None:
    torch.save(load_model(None, "sam_tiny").decoder.state_dict(), tmp_path / "sam_b.pt")
    done = subprocess.run(
        [*python, str(EXAMPLE)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["onnxruntime", "oracle", "onnxruntime"]
    assert lines[0].endswith("passed 25 cases")
    assert all(re.search(r"passed \d+ cases$", line) for line in lines)
    assert (tmp_path / "golden.npz").is_file()


def test_paths_may_be_text(export: Export) -> None:
    path = export().artifact.path
    assert api.validate(str(path), sweep="quick").to_json() == api.validate(path, sweep="quick").to_json()
    assert api.inspect(str(path)).record == export().artifact.record
    with pytest.raises(api.UsageError, match="A path is empty"):
        api.validate("")
