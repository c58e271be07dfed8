"""A run: what is not done twice, what a kill leaves, and everything that the gate stops."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest
import torch
from broken_graphs import Damage, make_nan, perturb_a_weight, swap_masks
from command_line import call, is_one_clear_line
from conftest import Export

from samdec_export import api
from samdec_export.backends.machine import Gpu, Machine, glance
from samdec_export.backends.tensorrt import engine as engines
from samdec_export.core.artifact import Artifact
from samdec_export.core.files import holding, sha256
from samdec_export.export import simplify as simplify_module
from samdec_export.export import to_onnx
from samdec_export.models.checkpoint import load_model
from samdec_export.run.ledger import FileHashes

FULL = (
    *("run", "--model", "sam_tiny", "--engines", "rtx", "--targets", "sm89", "--set", "bench.repeats=1"),
    *("--set", "bench.prompts=[1]", "--set", "engines.precisions=[fp16]"),
)
FP32 = ("run", "--precisions", "fp32", "--engines", "none", "--set", "bench.enabled=false")
REPORTS = {"report.json", "report.html", "report.md", "report.xml"}


@pytest.fixture(scope="session")
def command(python: list[str]) -> list[str]:
    """The command line in a process of its own."""
    return [*python, "-m", "samdec_export"]


@pytest.fixture(scope="session")
def finished(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with every stage."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = subprocess.run([*command, *FULL, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def ledger(out: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (out / ".samdec").glob("*.json")}


def redone(out: Path, before: dict[str, bytes]) -> set[str]:
    """Stages that were run since; each writes its seconds anew."""
    return {name for name, content in ledger(out).items() if before.get(name) != content}


def sentences(out: Path) -> str:
    return "\n".join(verdict["sentence"] for verdict in document(out)["verdicts"] if not verdict["passed"])


# What is made, and what is not made twice


def test_a_run_makes_proves_and_reports_everything(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names > REPORTS | {"sam_tiny.decoder.onnx", "sam_tiny.decoder.fp16.onnx", "bench.json"}
    found = document(finished)
    assert found["passed"]
    assert found["headline"].startswith("PASSED: sam_tiny.decoder.onnx, sam_tiny.decoder.fp16.onnx equal")
    assert [stage["name"] for stage in found["stages"]] == [
        *("export", "simplify", "convert-fp16", "engine-rtx-fp16", "parity-fp32", "parity-fp16", "bench")
    ]
    engine = found["artifacts"][-1]
    assert (engine["kind"], engine["status"]) == ("engine", "not run")
    assert engine["reason"] == "no GPU here"
    assert "1 engine was built and not run" in found["headline"]
    assert {"gate.fp16.iou", "gate.fp32.logits", "gate.fp16.iou_predictions", "origin.fp32", "structure"} <= {
        verdict["threshold"] for verdict in found["verdicts"]
    }
    assert len(found["comparisons"]) == 4
    for comparison in found["comparisons"]:
        masks = comparison["errors"]["masks"]
        values = sum(masks["counts"]) + masks["exact"]
        assert values == sum(case["sizes"]["batch"] * 3 * 32 * 32 for case in comparison["cases"])
    assert found["latency"]["measurements"]
    assert found["ranges"]
    assert ElementTree.parse(finished / "report.xml").getroot().get("failures") == "0"


def test_the_exported_file_is_that_of_the_onnx_command(finished: Path, export: Export) -> None:
    assert (finished / "sam_tiny.decoder.onnx").read_bytes() == export().artifact.path.read_bytes()


def test_a_second_run_does_nothing_and_is_quick(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, *FULL, "--out", out)[0] == 0  # the copy's name is another: its report is written once more
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = [*FULL, "--out", str(out)]
    code = f"import sys\nfrom samdec_export.cli.app import main\ntry: main({words!r})\nfinally: print(*sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - started
    *shown, modules = done.stdout.splitlines()
    assert shown[0].startswith("PASSED: ")
    assert "0 stages run, 8 skipped." in shown
    assert not {"torch", "onnx", "onnxruntime", "tensorrt_rtx"} & set(modules.split())
    assert elapsed < 3.0, "0.7 s on an idle machine"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


TOUCHED = {
    "gate.fp16.iou=0.95": {"parity-fp16", "report"},
    "convert.margin=4.5": {"convert-fp16", "engine-rtx-fp16", "parity-fp16", "bench", "report"},  # the record says it
    "engines.targets=[sm86]": {"engine-rtx-fp16", "report"},
    "bench.repeats=2": {"bench", "report"},
    "gate.require_engines=false": {"report"},
}


@pytest.mark.parametrize("setting", TOUCHED)
def test_only_what_depends_on_a_key_is_done_again(out: Path, capsys: pytest.CaptureFixture[str], setting: str) -> None:
    before = ledger(out)
    assert call(capsys, *FULL, "--out", out, "--set", setting)[0] == 0
    assert redone(out, before) == TOUCHED[setting]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "stage"),
    [
        ("sam_tiny.decoder.onnx", spoil, "simplify"),
        ("sam_tiny.decoder.fp16.onnx.json", Path.unlink, "convert-fp16"),
        ("sam_tiny.decoder.fp16.sm89.engine", spoil, "engine-rtx-fp16"),
        (".samdec/simplify.json", spoil, "simplify"),
        ("report.md", spoil, "report"),
    ],
)
def test_a_damaged_output_is_made_again(
    out: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None], stage: str
) -> None:
    before, whole = ledger(out), {path.name: path.read_bytes() for path in out.glob("*.onnx")}
    damage(out / name)
    assert call(capsys, *FULL, "--out", out)[0] == 0
    assert redone(out, before) - {"report"} == {stage} - {"report"}
    assert {path.name: path.read_bytes() for path in out.glob("*.onnx")} == whole


def unknown_field(result: dict[str, Any]) -> None:
    result["colour"] = "red"


def missing_field(result: dict[str, Any]) -> None:
    del result["comparisons"][0]["reference"]


def text_for_a_number(result: dict[str, Any]) -> None:
    result["comparisons"][0]["cases"][0]["outputs"][0]["tensor"]["relative"] = "much"


@pytest.mark.parametrize(
    "damage", [unknown_field, missing_field, text_for_a_number], ids=lambda damage: damage.__name__
)
def test_a_result_that_is_not_what_the_stage_finds_out_is_made_again(
    out: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[dict[str, Any]], None]
) -> None:
    path = out / ".samdec" / "parity-fp32.json"
    entry = json.loads(path.read_text())
    del entry["sha256"]
    damage(entry["result"])
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**entry, "sha256": digest}))
    before = ledger(out)
    assert call(capsys, *FULL, "--out", out)[0] == 0
    assert redone(out, before) - {"report"} == {"parity-fp32"}
    assert document(out)["passed"]


def test_a_run_that_is_killed_goes_on_where_it_was(command: list[str], finished: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", (*FULL, "--engines", "none", "--set", "bench.enabled=false")
    kept: dict[str, bytes] = {}
    for stage in ("export", "convert-fp16", "parity-fp32"):
        process = subprocess.Popen([*command, *words, "--out", str(out)], stderr=subprocess.DEVNULL)
        while not (out / ".samdec" / f"{stage}.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert kept.items() <= ledger(out).items(), "what was done is not done again"
        kept = ledger(out)
    done = subprocess.run([*command, *words, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= ledger(out).items()
    for name in ("sam_tiny.decoder.onnx", "sam_tiny.decoder.fp16.onnx"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert not list(out.rglob(".samdec-*")), "nothing of the killed runs is left"


def test_two_runs_do_not_share_a_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with holding(out / ".samdec"):
        code, _, err = call(capsys, *FULL, "--out", out)
    assert (code, is_one_clear_line(err)) == (2, True)
    assert "Another run works in" in err


def test_a_hash_is_remembered_until_it_is_asked_for_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.pt"
    checkpoint.write_bytes(b"weights")
    hashes, again = FileHashes(tmp_path), FileHashes(tmp_path, again=True)
    first, status = hashes.of(checkpoint), checkpoint.stat()
    assert first == sha256(checkpoint)
    with checkpoint.open("r+b") as file:
        file.write(b"w3ights")
    os.utime(checkpoint, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashes.of(checkpoint) == first, "size, time and inode are as before"
    assert again.of(checkpoint) == sha256(checkpoint) != first
    assert hashes.of(checkpoint) == sha256(checkpoint), "and remembered"
    (tmp_path / "hashes.json").write_text("[]")
    os.utime(checkpoint)
    assert hashes.of(checkpoint) == sha256(checkpoint)


@pytest.mark.parametrize("words", [["--ckpt", "nowhere.pt"], ["--model", "sam_b"], ["--set", "parity.feeds=none.npz"]])
def test_bad_input_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, _, err = call(capsys, "run", *words, "--out", tmp_path / "out")
    assert code in (2, 3)
    assert is_one_clear_line(err)
    assert not (tmp_path / "out").exists()


def test_a_stage_that_fails_leaves_no_report_of_another_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *FULL, "--out", out, "--set", 'convert.keep_fp32=["*"]')
    assert (code, is_one_clear_line(err)) == (4, True)
    assert not REPORTS & {path.name for path in out.iterdir()}
    assert (out / "sam_tiny.decoder.fp16.onnx").exists()


# What the gate stops


def broken_by(damage: Damage) -> Callable[[Path, Path], None]:
    """A simplifier that does damage."""
    right = simplify_module.simplify

    def simplify(source: Path, target: Path) -> None:
        right(source, target)
        model = onnx.load(target)
        damage(model)
        onnx.save(model, target)

    return simplify


STOPPED = {
    "perturbed weight": (perturb_a_weight, "gate.fp32.logits", "times as much"),
    "swapped masks": (swap_masks, "gate.fp32.iou", "too low"),
    "NaN": (make_nan, "structure", "NaN or Inf"),
}


@pytest.mark.parametrize("kind", STOPPED)
def test_the_gate_stops_a_broken_graph(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    damage, threshold, words = STOPPED[kind]
    monkeypatch.setattr(simplify_module, "simplify", broken_by(damage))
    (out / ".samdec" / "simplify.json").unlink()
    code, shown, err = call(capsys, *FP32, "--model", "sam_tiny", "--out", out)
    assert (code, is_one_clear_line(err)) == (7, True)
    assert shown.startswith("FAILED: sam_tiny.decoder.onnx")
    assert words in sentences(out)
    failed = [verdict for verdict in document(out)["verdicts"] if not verdict["passed"]]
    assert threshold in {verdict["threshold"] for verdict in failed}
    assert any(verdict["case"].startswith("batch=") for verdict in failed)
    assert (out / "report.html").exists()
    assert call(capsys, *FP32, "--model", "sam_tiny", "--out", out)[0] == 7, "also where nothing had to be done"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, api.Exported]:
    """A checkpoint whose first upscaling overflows fp16, and what it exports to."""
    folder = tmp_path_factory.mktemp("foreign")
    weights = load_model(None, "sam_tiny").decoder.state_dict()
    for name in ("weight", "bias"):
        weights[f"mask_decoder.output_upscaling.0.{name}"] *= 1e3
    torch.save(weights, folder / "foreign.pt")
    return folder / "foreign.pt", api.export(folder / "foreign.pt", "sam_tiny", out=folder, validate=False)


def test_the_gate_stops_an_fp16_overflow(
    foreign: tuple[Path, api.Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "--ckpt", foreign[0], "--model", "sam_tiny", "--engines", "none", "--out", tmp_path)
    options = ("--set", "arrangement=reference", "--precisions", "fp16", "--set", "bench.enabled=false")
    code, _, err = call(capsys, *words, *options, "--set", "convert.protect=false")
    assert (code, is_one_clear_line(err)) == (7, True)
    assert "gate.fp16." in sentences(tmp_path)
    assert "oracle" in sentences(tmp_path)
    assert document(tmp_path)["worst_masks"][0]["flipped"] > 50
    assert {artifact["name"]: artifact["status"] for artifact in document(tmp_path)["artifacts"]} == {
        "sam_tiny.decoder.onnx": "validated",
        "sam_tiny.decoder.fp16.onnx": "failed",
    }
    before, content = ledger(tmp_path), bytearray(foreign[0].read_bytes())
    with foreign[0].open("r+b") as file:
        file.write(content)
    assert call(capsys, *words, *options, "--set", "convert.protect=false", "--rehash")[0] == 7
    assert redone(tmp_path, before) == {"hashes"}, "the time changed, the content did not"


def test_the_gate_stops_an_onnx_file_of_another_checkpoint(
    foreign: tuple[Path, api.Exported], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def simplify_graph(traced: Path, scratch: Path, folder: Path) -> api.Exported:
        made = foreign[1]
        for path in (made.artifact.path, made.artifact.sidecar):
            shutil.copy(path, folder)
        return replace(made, artifact=replace(made.artifact, path=folder / made.artifact.path.name))

    monkeypatch.setattr(to_onnx, "simplify_graph", simplify_graph)
    (out / ".samdec" / "simplify.json").unlink()
    assert call(capsys, *FP32, "--model", "sam_tiny", "--out", out)[0] == 7
    assert "does not equal its checkpoint" in sentences(out)


def test_the_gate_stops_an_engine_of_another_checkpoint(
    foreign: tuple[Path, api.Exported], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = engines.build

    def build(typed: Artifact, plan: engines.BuildPlan, out: Path) -> engines.EngineBuilt:
        return right(api.convert(foreign[1].artifact.path, "fp16", out=out, validate=False).artifact, plan, out)

    monkeypatch.setattr(engines, "build", build)
    (out / ".samdec" / "engine-rtx-fp16.json").unlink()
    code, _, err = call(capsys, *FULL, "--out", out)
    assert (code, is_one_clear_line(err)) == (7, True)
    assert "names decoder weights" in sentences(out)
    assert "names the ONNX file" in sentences(out)
    assert document(out)["artifacts"][-1]["status"] == "failed"


def baseline(out: Path, factor: float, **changes: Any) -> Path:
    data = json.loads((out / "bench.json").read_text())
    for item in data["measurements"]:
        item["median"] *= factor
    path = out.parent / "baseline.json"
    path.write_text(json.dumps({**data, **changes}))
    return path


def test_the_gate_stops_what_got_slower(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*FULL, "--out", out, "--set", f"gate.latency.baseline={baseline(out, 0.5)}")
    code, shown, _ = call(capsys, *words)
    assert code == 7
    assert "gate.latency.ratio asks for at most 1.1" in shown
    assert "ms too slow" in sentences(out)
    assert call(capsys, *words, "--set", "gate.latency.ratio=2.5")[0] == 0
    baseline(out, 1.0)
    assert call(capsys, *words)[0] == 0, "another content of the same file"


def test_a_baseline_that_fits_nothing_is_no_pass(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*FULL, "--out", out, "--set", f"gate.latency.baseline={baseline(out, 1.0, measurements=[])}")
    assert call(capsys, *words)[0] == 7
    assert "nothing was compared" in sentences(out)
    for changes, message in (({"threads": 9}, "was measured with 9 threads"), ({"measurements": 3}, "no")):
        baseline(out, 1.0, **changes)
        code, _, err = call(capsys, *words)
        assert (code, is_one_clear_line(err), message in err) == (2, True, True)


def test_engines_that_were_not_run_can_be_required(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = call(capsys, *FULL, "--out", out, "--set", "gate.require_engines=true")
    assert code == 7
    assert "built, not run: no GPU here; gate.require_engines asks for engines that were run." in shown


def test_an_engine_that_fits_the_gpu_and_still_cannot_run_is_no_pass(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Machine(gpu=Gpu(name="an Ada card", target="sm89"), versions=glance().versions)
    monkeypatch.setattr("samdec_export.run.job.glance", lambda: here)  # the comparison looks again, and finds none
    words = (*FULL, "--set", "bench.enabled=false", "--out", out)
    assert call(capsys, *words)[0] == 0
    found = document(out)
    assert "parity-rtx-fp16" in {stage["name"] for stage in found["stages"]}
    assert found["artifacts"][-1]["status"] == "not run"
    assert "cannot run here" in found["artifacts"][-1]["reason"]
    assert call(capsys, *words, "--set", "gate.require_engines=true")[0] == 7


def test_json_is_the_document(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = call(capsys, *FULL, "--out", out, "--json")
    assert (code, json.loads(shown)) == (0, document(out))


def test_a_bf16_file_is_compared_and_not_timed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", "--model", "sam_tiny", "--engines", "none", "--precisions", "bf16", "--out", out)
    assert call(capsys, *words)[0] == 0
    found = document(out)
    assert found["latency"] is None
    assert any("no bf16 kernels" in note for note in found["notes"])
    assert {verdict["threshold"] for verdict in found["verdicts"]} >= {"gate.bf16.iou", "gate.fp32.iou"}
