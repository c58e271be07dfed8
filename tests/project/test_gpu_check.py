"""scripts/gpu-check, as far as it goes without a GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samdec_export.backends.machine import Gpu, Machine, first_gpu

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ADA = Gpu(name="an Ada card", target="sm89")
HOPPER = Gpu(name="a Hopper card", target="sm90")
BOTH = {"tensorrt": "11.4.0", "rtx": "1.7.1"}


@pytest.fixture(scope="module")
def gpu_check() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPTS / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(first_gpu() is not None, reason="there is a GPU here")
def test_without_a_gpu_it_says_so_at_once(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPTS / "gpu-check"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 6
    assert done.stderr == "gpu-check: there is no CUDA driver or no GPU here, and nothing was checked.\n"
    assert done.stdout == ""


def test_each_gpu_has_its_engines(gpu_check: Any) -> None:
    for gpu, versions, engines in (
        (ADA, BOTH, ["tensorrt", "rtx"]),
        (HOPPER, BOTH, ["tensorrt"]),
        (HOPPER, {"rtx": "1.7.1"}, []),
        (None, BOTH, []),
    ):
        assert gpu_check.engines_of(Machine(gpu=gpu, versions=versions)) == engines  # type: ignore[arg-type]


def test_the_plan_covers_every_engine_and_its_needs(gpu_check: Any, tmp_path: Path) -> None:
    steps = list(gpu_check.plan(["sam_tiny", "sam_b"], ["tensorrt", "rtx"], "sm89", tmp_path))
    names = [step.name for step in steps]
    assert len(names) == len({*names})
    for number, step in enumerate(steps):
        assert {*step.needs} <= {*names[:number]}
    for kind in ("build", "validate", "bench"):
        assert sum(name.endswith(kind) for name in names) == 24 + 4 * (kind == "validate")
    assert names[-1] == "pytest -m gpu"


def step(gpu_check: Any, name: str, code: str, *needs: str) -> Any:
    return gpu_check.Step(name=name, words=(sys.executable, "-c", code), needs=needs)


def test_the_exit_code_and_the_report_say_what_failed(
    gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        step(gpu_check, "good", "print('fine')"),
        step(gpu_check, "bad one", "import sys; print('it broke', file=sys.stderr); sys.exit(7)", "good"),
        step(gpu_check, "after it", "print('never')", "bad one"),
        step(gpu_check, "also good", "pass", "good"),
    ]
    monkeypatch.setattr(gpu_check, "look", lambda: Machine(gpu=ADA, versions=BOTH))  # type: ignore[arg-type]
    monkeypatch.setattr(gpu_check, "plan", lambda *arguments: steps)
    assert gpu_check.check(["sam_tiny"], tmp_path / "report") == 7
    assert "2 of 4 steps passed" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [found["code"] for found in report["steps"]] == [0, 7, None, 0]
    assert (report["passed"], report["gpu"]["target"]) == (False, "sm89")
    text = (tmp_path / "report" / "report.txt").read_text()
    assert "FAILED with 7" in text
    assert "it broke" in text
    assert "fine" in (tmp_path / "report" / "good.out").read_text()
    monkeypatch.setattr(gpu_check, "plan", lambda *arguments: steps[:1])
    assert gpu_check.check(["sam_tiny"], tmp_path / "report") == 0
    monkeypatch.setattr(gpu_check, "look", lambda: Machine(gpu=HOPPER, versions={"rtx": "1.7.1"}))
    assert gpu_check.check(["sam_tiny"], tmp_path / "report") == 6


def test_a_seeded_checkpoint_is_written(gpu_check: Any, tmp_path: Path) -> None:
    from samdec_export.models.checkpoint import load_model

    gpu_check.write_checkpoint("sam_tiny", tmp_path / "tiny.safetensors")
    assert load_model(tmp_path / "tiny.safetensors", "sam_tiny").spec.name == "sam_tiny"
