"""What goes wrong in a build, as a user of the command line meets it, with TensorRT-RTX's own parser and builder."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import call, is_one_clear_line
from conftest import Typed
from onnx import TensorProto, helper
from onnx_graphs import write
from rich.console import Console
from test_tensorrt import RTX, add_nine_axes, add_one_hot, changed, tensor

from samdec_export import api
from samdec_export.backends.tensorrt import builder as trt
from samdec_export.backends.tensorrt import engine as engines
from samdec_export.backends.tensorrt.lint import lint_for_engine
from samdec_export.core import log
from samdec_export.core.errors import EngineError
from samdec_export.core.files import move_with_sidecar, sidecar_of
from samdec_export.core.signature import Dim, Signature
from samdec_export.export.onnx_file import open_artifact

WORDS = ("--engine", "rtx", "--targets", "sm89")


def add_custom(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Fancy", ["image_pe"], ["fancy"], name="fancy_1", domain="somebody"))
    model.opset_import.append(helper.make_opsetid("somebody", 1))


def cut_a_weight(model: onnx.ModelProto) -> None:
    largest = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    largest.raw_data = largest.raw_data[:-8]


def add_tile(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Tile", ["image_pe", "twice"], ["tiled"], name="tile_1"))
    model.graph.initializer.append(helper.make_tensor("twice", TensorProto.INT64, [4], [2, 1, 1, 1]))


def rename_an_axis(model: onnx.ModelProto) -> None:
    (sparse,) = (value for value in model.graph.input if value.name == "sparse_prompt_embeddings")
    sparse.type.tensor_type.shape.dim[0].dim_param = "prompts"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_custom, "INVALID_NODE at Fancy fancy_1"),
        (add_nine_axes, "rank9 has rank 9"),
        (add_one_hot, "OneHot .*, which repeat_interleave becomes"),
        (add_tile, "Tile tile_1, which repeat_interleave becomes"),
        (rename_an_axis, r"by its record .*sparse_prompt_embeddings has axes \('prompts', .*, not \('batch'"),
        (cut_a_weight, "cannot"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_graph_that_cannot_be_built(
    typed: Typed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[onnx.ModelProto], None],
    message: str,
) -> None:
    path = changed(typed, tmp_path, change)
    code, _, err = call(capsys, "trt", path, *WORDS, "--out", tmp_path / "out")
    assert (code, is_one_clear_line(err)) == (5, True), err
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


def test_a_file_cut_off(typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(typed().read_bytes()[:50_000])
    code, _, err = call(capsys, "trt", path, *WORDS)
    assert (code, is_one_clear_line(err)) == (4, True)


def test_a_missing_file_comes_before_a_missing_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    code, _, err = call(capsys, "trt", tmp_path / "nowhere.onnx")
    assert (code, is_one_clear_line(err)) == (4, True)
    assert "nowhere.onnx" in err
    assert "pip install" not in err


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that even root cannot write to."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    command = shutil.which("mount")
    done = command and subprocess.run(
        [command, "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True, text=True, check=False
    )
    if not done or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done and done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_system_that_cannot_be_written_to(
    typed: Typed, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "trt", typed(), *WORDS, "--out", read_only)
    assert (code, is_one_clear_line(err)) == (2, True)
    assert "Read-only file system" in err


# What is taken and paid for


def labels_graph(path: Path, op: str, view: bool) -> tuple[Path, Signature]:
    """int64 labels (P, N) that meet a constant in an operator."""
    nodes = [helper.make_node("Unsqueeze", ["labels", "axis"], ["seen"])] if view else []
    nodes.append(helper.make_node(op, ["seen" if view else "labels", "one"], ["y"], name="node_1"))
    kind = TensorProto.BOOL if op == "Equal" else TensorProto.INT64
    constants = {"one": np.array(1, np.int64), "axis": np.array([2], np.int64)}
    write(path, nodes, {"labels": np.zeros((2, 3), np.int64)}, {"y": kind}, constants)
    labels = replace(tensor("labels", (2, 3)), dtype="int64")
    y: Any = replace(labels, name="y", shape=())  # declared without a shape
    return path, Signature(inputs=(labels,), outputs=(replace(y, dtype="bool") if op == "Equal" else y,))


@pytest.mark.parametrize(("op", "view", "costs"), [("Add", False, True), ("Add", True, True), ("Equal", True, False)])
def test_arithmetic_on_labels_is_warned_of(tmp_path: Path, op: str, view: bool, costs: bool) -> None:
    found = lint_for_engine(*labels_graph(tmp_path / "labels.onnx", op, view))
    assert bool(found) == costs
    assert all("node_1 computes in int64" in line and "Cast it to int32" in line for line in found)


@pytest.mark.parametrize("options", [{}, {"graph": "prompts"}, {"graph": "prompts", "mask_input": True}])
def test_no_exported_graph_pays_for_int64(typed: Typed, options: dict[str, Any]) -> None:
    path = typed(**options)
    assert lint_for_engine(path, open_artifact(path).record.signature) == []


def test_a_cost_is_said_and_the_build_goes_on(typed: Typed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def shift_labels(model: onnx.ModelProto) -> None:
        nodes = model.graph.node
        (unsqueeze,) = (node for node in nodes if "point_labels" in node.input and node.op_type == "Unsqueeze")
        unsqueeze.input[0] = "shifted"
        nodes.insert(0, helper.make_node("Sub", ["point_labels", "none"], ["shifted"], name="shift_1"))
        model.graph.initializer.append(helper.make_tensor("none", TensorProto.INT64, [], [0]))

    path = changed(typed, tmp_path, shift_labels, graph="prompts")
    with caplog.at_level("WARNING", logger="samdec_export"):
        api.build_engine(path, RTX)
    assert [record.message for record in caplog.records if "Sub shift_1 computes in int64" in record.message]


def test_a_minimum_of_zero_is_no_axis() -> None:
    with pytest.raises(ValueError, match="1 <= min"):
        Dim(name="batch", min=0, opt=1, max=2)


# Progress


def test_the_builders_phases_are_shown(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Any, ...]] = []

    class Recorder:
        def start(self, name: str, steps: int) -> None:
            said.append(("start", name))

        def advance(self, name: str, step: int) -> None:
            said.append(("step", name))

        def finish(self, name: str) -> None:
            said.append(("finish", name))

    monkeypatch.setattr(trt, "phases", lambda title: contextlib.nullcontext(Recorder()))
    api.build_engine(typed(), RTX, out=tmp_path)
    started = [name for what, name in said if what == "start"]
    assert started
    assert sorted(started) == sorted(name for what, name in said if what == "finish")
    assert {name for what, name in said if what == "step"} <= {*started}


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(log, "console", lambda: Console(file=screen, force_terminal=True, width=100))
    monkeypatch.setattr(log.log, "isEnabledFor", lambda level: True)
    with log.phases("Building") as shown:
        shown.start("Tactics", 3)
        shown.advance("Tactics", 1)
        assert shown.progress is not None
        shown.progress.refresh()
        assert "Tactics" in screen.getvalue()
        assert "2/3" in screen.getvalue()
        shown.finish("Tactics")
        assert not shown.bars


# Files


def test_an_interrupt_does_not_part_a_file_from_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where another thread, such as TensorRT's, is there to take the signal."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    moved: list[str] = []
    move = os.replace

    def replace_and_interrupt(source: Path, target: Path) -> None:
        move(source, target)
        moved.append(Path(target).name)
        os.kill(os.getpid(), signal.SIGTERM)

    done = threading.Event()
    threading.Thread(target=done.wait).start()
    former = signal.signal(signal.SIGTERM, interrupt)
    monkeypatch.setattr(os, "replace", replace_and_interrupt)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "draft").write_bytes(b"file")
    try:
        with pytest.raises(KeyboardInterrupt):
            move_with_sidecar(tmp_path / "scratch" / "draft", tmp_path / "a.engine", {"sha256": "0"})
    finally:
        signal.signal(signal.SIGTERM, former)
        done.set()
    assert moved == ["a.engine", "a.engine.json"]
    assert (tmp_path / "a.engine").read_bytes() == b"file"
    assert sidecar_of(tmp_path / "a.engine").exists()


def test_an_engine_of_another_run_is_intact_after_a_failed_one(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = api.build_engine(typed(), RTX, out=tmp_path).engine
    content = done.path.read_bytes()

    def fail(*arguments: Any) -> None:
        raise EngineError("refused")

    monkeypatch.setattr(engines, "check_precision", fail)
    with pytest.raises(EngineError, match="refused"):
        api.build_engine(typed(), RTX, out=tmp_path)
    assert done.path.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {done.path.name, done.sidecar.name}
