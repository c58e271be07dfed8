"""The command line as a user meets it: exit codes, one line for an error, nothing left behind."""

from __future__ import annotations

import functools
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import command_line
import onnx
import pytest
import torch
from command_line import COMMAND, call, is_one_clear_line, run
from conftest import Export

from samdec_export import __version__
from samdec_export.models.checkpoint import load_model


def test_ranges_are_the_users(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = (
        "onnx",
        "--model",
        "sam_tiny",
        "--graph",
        "prompts",
        "--range",
        "prompts=1:2:5",
        "--range",
        "points=2:3:4",
        "--out",
        tmp_path,
    )
    assert call(capsys, *words, "--no-validate")[0] == 0
    code, out, _ = call(capsys, "validate", tmp_path / "sam_tiny.prompts.onnx", "--json")
    assert code == 0
    sizes = [case["sizes"] for case in json.loads(out)["comparisons"][0]["cases"]]
    assert {size["prompts"] for size in sizes} == {1, 2, 3, 4, 5}
    assert {size["points"] for size in sizes} == {2, 3, 4}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (["prompts"], "is not AXIS=MIN:OPT:MAX"),
        (["prompts=1:2"], "is not AXIS=MIN:OPT:MAX"),
        (["prompts=0:1:2"], "is not AXIS=MIN:OPT:MAX"),
        (["prompts=3:2:4"], "is not AXIS=MIN:OPT:MAX"),
        (["batch=1:2:3"], "has no dynamic axis 'batch'"),
        (["points=1:2:3", "points=1:2:4"], "has two ranges"),
    ],
)
def test_wrong_ranges(capsys: pytest.CaptureFixture[str], tmp_path: Path, ranges: list[str], message: str) -> None:
    words = [word for text in ranges for word in ("--range", text)]
    code, _, err = call(capsys, "onnx", "--model", "sam_tiny", "--graph", "prompts", *words, "--out", tmp_path)
    assert (code, is_one_clear_line(err)) == (2, True)
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(load_model(None, "sam_tiny").decoder.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_help_is_quick() -> None:
    elapsed = []
    for _ in range(3):
        started = time.perf_counter()
        assert "Segment Anything" in run("--help").stdout
        elapsed.append(time.perf_counter() - started)
    imported = run_python("import sys, samdec_export.cli.app; print(*sys.modules)")
    assert not {"torch", "onnx", "numpy", "pydantic", "onnxruntime"} & set(imported.split())
    assert min(elapsed) < 1.0, "0.2 s on an idle machine; a busy one may take longer"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[:2] == (0, f"samdec-export {__version__}\n")


def test_a_checkpoint_becomes_a_proven_file(python: list[str], tmp_path: Path, checkpoint: Path) -> None:
    run = functools.partial(command_line.run, command=[*python, "-m", "samdec_export"], cwd=tmp_path)
    done = run("onnx", "--ckpt", checkpoint)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "artifacts").iterdir()}
    assert files == {"sam_tiny.decoder.onnx", "sam_tiny.decoder.onnx.json"}
    assert "0 failed" in done.stdout
    assert "Exporting sam_tiny decoder" in done.stderr
    assert "traced" in done.stdout
    again = run("validate", "artifacts/sam_tiny.decoder.onnx", "--ckpt", checkpoint, "--report", "r.json")
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"]
    assert {case["sizes"]["batch"] for case in report["comparisons"][0]["cases"]} >= {1, 2, 64}
    missing = run("validate", "artifacts/sam_tiny.decoder.onnx")
    assert missing.returncode == 2
    assert "was exported from tiny.pt: the reference needs it. Give its file as --ckpt." in missing.stderr


def test_a_failed_validation_exits_7_and_says_how_to_replay(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(export().artifact.path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(model, tmp_path / "broken.onnx")
    code, out, err = call(capsys, "validate", tmp_path / "broken.onnx", "--sweep", "quick", "--json")
    assert code == 7
    assert is_one_clear_line(err)
    replay = err.strip().rpartition("Replay: samdec-export ")[2].split()
    assert call(capsys, *replay)[0] == 7
    assert json.loads(out)["replay"].endswith(" ".join(replay))


def test_inspect_tells_inputs_axes_and_provenance(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    path = export().artifact.path
    code, out, _ = call(capsys, "inspect", path)
    assert code == 0
    for part in ("sparse_prompt_embeddings", "(batch, points, 32)", "batch 1..1..64", "MatMul", "seeded", "torch 2"):
        assert part in out
    found = json.loads(call(capsys, "inspect", path, "--json")[1])
    assert found["record"]["model"] == "sam_tiny"
    assert found["graph"]["opset"] == 20


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(call(capsys, "models", "--json")[1])
    assert [row["name"] for row in rows] == ["sam_b", "sam_l", "sam_h", "mobile_sam", "sam_toy", "sam_tiny"]
    code, out, _ = call(capsys, "models")
    assert code == 0
    assert "vit_b" in out
    code, out, _ = call(capsys, "doctor", "--json")
    diagnosis = json.loads(out)
    assert code == 0
    assert diagnosis["healthy"]
    assert diagnosis["engines"]["onnxruntime cpu"]
    assert "torch" in call(capsys, "doctor")[1]


BAD_USE = [
    (["onnx", "--graph", "decode"], 2),
    (["onnx", "--opset", "16"], 2),
    (["onnx", "--mask-input"], 2),
    (["onnx", "--model", "sam_bb"], 2),
    (["onnx", "--model", "sam_b"], 3),
    (["onnx", "--ckpt", "nowhere.pt"], 3),
    (["validate", "nowhere.onnx"], 4),
    (["validate", "README.txt"], 4),
    (["validate", "."], 4),
    (["inspect", "nowhere.onnx"], 4),
    (["inspect", "empty.onnx"], 4),
    (["inspect", "."], 4),
    (["nonsense"], 2),
    (["validate"], 2),
    (["validate", "x.onnx", "--seed", "-1"], 2),
    (["record", "nowhere.onnx"], 4),
    (["golden", "nowhere.npz"], 2),
    (["golden", "README.txt"], 2),
]


@pytest.mark.parametrize(
    ("words", "code"), BAD_USE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_use_ends_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.txt").write_text("not a model")
    (tmp_path / "empty.onnx").touch()
    found, out, err = call(capsys, *words)
    assert found == code
    assert not out
    assert err.strip()
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"README.txt", "empty.onnx"}


@pytest.mark.parametrize("out", ["file/sub", "/proc/nowhere", "new/" + "x" * 300])
def test_an_unwritable_folder_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, _, err = call(capsys, "onnx", "--model", "sam_tiny", "--out", out)
    assert code == 2
    assert is_one_clear_line(err)
    assert "Cannot write to" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_never_replaces_what_it_is_about(
    export: Export, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = tmp_path / "model.onnx"
    artifact.write_bytes(export().artifact.path.read_bytes())
    (tmp_path / "link.json").symlink_to(artifact)
    for target in (artifact, checkpoint, tmp_path / "link.json"):
        before = target.read_bytes()
        code, _, err = call(capsys, "validate", artifact, "--ckpt", checkpoint, "--report", target)
        assert code == 2
        assert "is an input of this run" in err
        assert target.read_bytes() == before


def test_a_report_goes_to_a_pipe_as_it_comes(export: Export, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    words = ["-q", "validate", str(export().artifact.path), "--sweep", "quick", "--report", str(tmp_path / "pipe")]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL)
    assert json.loads((tmp_path / "pipe").read_text())["passed"]
    assert process.wait() == 0
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_standard_output_is_told(export: Export) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "inspect", str(export().artifact.path)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert is_one_clear_line(done.stderr)


def test_names_that_a_terminal_cannot_show(export: Export, tmp_path: Path) -> None:
    copy = tmp_path / "é[red].onnx"
    copy.write_bytes(export().artifact.path.read_bytes())
    done = run("inspect", copy, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "[red].onnx" in done.stdout


@pytest.mark.parametrize("name", ["pipe", "x" * 300])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    for words, code in ((["onnx", "--ckpt"], 3), (["inspect"], 4), (["validate"], 4)):
        found, _, err = call(capsys, *words, tmp_path / name)
        assert found == code
        assert is_one_clear_line(err)


def limit_file_size() -> None:
    """What a full disk does: a write fails half-way."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    done = run("-q", "onnx", "--model", "sam_tiny", "--out", tmp_path / "out", preexec_fn=limit_file_size)
    assert done.returncode == 4
    assert is_one_clear_line(done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "delay"), [(signal.SIGINT, 0.5), (signal.SIGTERM, 3), (signal.SIGHUP, 4)])
def test_an_interrupted_export_leaves_the_old_file(tmp_path: Path, kind: signal.Signals, delay: float) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sam_tiny.decoder.onnx").write_text("old")
    process = subprocess.Popen(
        [*COMMAND, "onnx", "--model", "sam_tiny", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any(path.name.startswith(".samdec-") for path in out.iterdir()))
    time.sleep(delay)
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), "a shell shows both as 130"
    assert "Traceback" not in err
    assert is_one_clear_line(err.splitlines()[-1] + "\n")
    assert [path.name for path in out.iterdir()] == ["sam_tiny.decoder.onnx"]
    assert (out / "sam_tiny.decoder.onnx").read_text() == "old"


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["onnx", "--ckpt", ""], "--ckpt"),
        (["onnx", "--model", ""], "--model"),
        (["onnx", "--model="], "--model"),
        (["validate", ""], "An argument"),
    ],
)
def test_an_empty_value_is_no_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words)
    assert (code, out, is_one_clear_line(err)) == (2, "", True)
    assert err.startswith(f"samdec-export: {named} is empty.")
    assert not [*tmp_path.iterdir()]


def test_a_golden_is_recorded_shown_and_used(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = tmp_path / "tiny.onnx"
    artifact.write_bytes(export().artifact.path.read_bytes())
    code, out, _ = call(capsys, "record", artifact, "--seed", "3")
    assert code == 0
    assert "25 cases of torch" in out
    made = tmp_path / "tiny.golden.npz"
    words = ("--polygraphy-inputs", tmp_path / "in.json", "--polygraphy-outputs", tmp_path / "out.json", "--json")
    code, out, _ = call(capsys, "golden", made, *words)
    assert (code, json.loads(out)["golden"]["seed"]) == (0, 3)
    assert call(capsys, "validate", artifact, "--golden", made, "--outputs", tmp_path / "out.json")[0] == 0
    assert call(capsys, "validate", artifact, "--golden", made, "--sweep", "quick")[0] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx", "tiny.golden.npz", "in.json", "out.json"}


def test_a_name_cannot_break_the_lines(export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(export().artifact.path)
    model.graph.input[0].name = "one\ntwo\x1b[31m"
    model.graph.node[0].op_type = "Op\nout  masks"
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    code, out, _ = call(capsys, "inspect", tmp_path / "m.onnx")
    assert code == 0
    assert "one?two?[31m" in out
    assert len(out.splitlines()) == 1 + len(model.graph.input) + len(model.graph.output) + 2
    assert json.loads(call(capsys, "inspect", tmp_path / "m.onnx", "--json")[1])["graph"]["inputs"][0]["name"] == (
        "one\ntwo\x1b[31m"
    )


@pytest.mark.parametrize("words", ["models", "inspect PATH", "validate PATH --sweep quick --json"])
def test_a_reader_that_leaves_is_no_failure(export: Export, words: str) -> None:
    command = [*COMMAND, "-q", *words.replace("PATH", str(export().artifact.path)).split()]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_can_be_piped_away(export: Export) -> None:
    path = export().artifact.path
    done = subprocess.run(
        f"{' '.join(COMMAND)} inspect {path} | head -1",
        shell=True, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith(str(path))


def test_what_nobody_foresaw_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a hole\nin the road")

    monkeypatch.setattr("samdec_export.cli.export.api.models", broken)
    code, out, err = call(capsys, "models")
    assert (code, out, is_one_clear_line(err)) == (1, "", True)
    assert "RuntimeError: a hole in the road. This is a defect of samdec-export" in err
    monkeypatch.setenv("SAMDEC_EXPORT_TRACEBACK", "1")
    assert "Traceback" in call(capsys, "models")[2]


def test_a_path_that_cannot_be_read_is_not_the_output(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--feeds", "x" * 300), ("--golden", "x" * 300)):
        code, out, err = call(capsys, "validate", export().artifact.path, *words)
        assert (code, out, is_one_clear_line(err)) == (2, "", True)
        assert "File name too long" in err


def test_closed_standard_output_is_told() -> None:
    command = shlex.join([sys.executable, "-m", "samdec_export", "models"])
    done = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, is_one_clear_line(done.stderr)) == (4, True)
    assert "standard output is closed" in done.stderr
