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
from conftest import Export

from samdec_export import api
from samdec_export.models.checkpoint import load_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).parents[1] / "snippets" / "api_example.py"
"""A file of its own, so that `mypy --strict` checks what the docs show."""

FUNCTIONS = {
    "bench": "files checkpoint images prompts points threads repeats",
    "build_engine": "file options checkpoint precision out",
    "convert": "file wanted checkpoint out feeds sweep",
    "export": "checkpoint model options opset out sweep",
    "inspect": "file",
    "record": "file checkpoint out feeds seed sweep keep_inputs",
    "validate": "file checkpoint golden outputs feeds case seed sweep provider",
}
VALUES = {"BuildOptions", "Conversion", "GraphOptions", "SamdecError", "UsageError", "ValidationError"}


def test_the_public_names_change_only_on_purpose() -> None:
    assert {*api.__all__} == {*FUNCTIONS} | VALUES
    found = {name: " ".join(inspect.signature(getattr(api, name)).parameters) for name in FUNCTIONS}
    assert found == FUNCTIONS


def test_every_function_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for name in FUNCTIONS:
        assert f"`{name}`" in text
        document = inspect.getdoc(getattr(api, name))
        assert document is not None
        assert "Raises:" in document


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


def test_the_example_runs(tmp_path: Path) -> None:
    torch.save(load_model(None, "sam_tiny").decoder.state_dict(), tmp_path / "sam_b.pt")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["onnxruntime", "oracle", "onnxruntime"]
    assert all(line.endswith("passed 8 cases") for line in lines)
    assert (tmp_path / "golden.npz").is_file()


def test_paths_may_be_text(export: Export) -> None:
    path = export().artifact.path
    assert api.validate(str(path), sweep="quick").to_json() == api.validate(path, sweep="quick").to_json()
    assert api.inspect(str(path)).record == export().artifact.record
    with pytest.raises(api.UsageError, match="A path is empty"):
        api.validate("")
