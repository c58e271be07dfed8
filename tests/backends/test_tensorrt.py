"""Engines, built for real by TensorRT-RTX on a machine that needs no GPU; and what is refused, and how."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import call, is_one_clear_line
from conftest import Typed
from onnx import TensorProto, helper
from onnx_graphs import write

from samdec_export import api
from samdec_export.backends.machine import Gpu, Machine
from samdec_export.backends.tensorrt import engine as engines
from samdec_export.backends.tensorrt.builder import build_engine
from samdec_export.backends.tensorrt.engine_file import EngineRecord
from samdec_export.backends.tensorrt.options import BuildOptions, parse_profile, parse_targets
from samdec_export.core.errors import EngineError, UsageError, ValidationError
from samdec_export.core.signature import Signature, TensorSpec
from samdec_export.export.onnx_file import open_artifact, stamp
from samdec_export.parity.tolerances import TOLERANCES
from samdec_export.precision.autocast import autocast
from samdec_export.precision.keep import keep_by_rule
from samdec_export.precision.options import Conversion

RTX = BuildOptions(engine="rtx", targets=("sm89",))
NO_GPU = Machine(gpu=None, versions={"rtx": "1.7.1"})
ADA = Gpu(name="an Ada card", target="sm89")
FP16 = Conversion(precision="fp16")

REFERENCE = {"arrangement": "reference"}
TURING = replace(RTX, targets=("sm75", "sm89"))


def test_no_matrix_is_multiplied_in_fp32_for_turing(typed: Typed, tmp_path: Path) -> None:
    """The positional encoding of `prompts` stays in fp32, and is no matrix product."""
    source = Path(shutil.copy(typed(graph="prompts"), tmp_path))
    for _ in range(2):  # the second time the conversion is there
        done = api.build_engine(source, TURING, precision="fp16")
        assert done.engine.record.targets == ("sm75", "sm89")
        assert products_of(done.engine.record) == {"HALF"}
        assert "FLOAT" in done.engine.record.histogram["NORMALIZATION"]
    assert done.engine.path.name.endswith(".fp16.all-products.sm75-sm89.engine")


def products_of(record: EngineRecord) -> set[str]:
    """The types that matrices are multiplied in."""
    return {dtype for kind in engines.PRODUCTS for dtype in record.histogram.get(kind, {})}


def test_turing_costs_accuracy_and_it_is_said(typed: Typed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Path(shutil.copy(typed(), tmp_path))
    caplog.set_level("INFO", logger="samdec_export")
    api.build_engine(source, RTX, precision="fp16")
    assert "head that predicts IoUs" not in caplog.text
    api.build_engine(source, TURING, precision="fp16")
    assert "For sm75 no matmul stays in fp32" in caplog.text


def test_a_conversion_for_turing_is_not_taken_for_another(typed: Typed, tmp_path: Path) -> None:
    source = Path(shutil.copy(typed(), tmp_path))
    turing, other, again = (api.build_engine(source, wanted, precision="fp16") for wanted in (TURING, RTX, TURING))
    assert turing.onnx == again.onnx != other.onnx
    assert products_of(other.engine.record) == {"HALF", "FLOAT"}, "the head that predicts IoUs stays in fp32"
    assert turing.engine.record.onnx_sha256 == again.engine.record.onnx_sha256
    broken = Path(shutil.copy(other.onnx, turing.onnx))  # of this source, fp16, and not what was asked for
    turing.onnx.with_name(turing.onnx.name + ".json").unlink()
    with pytest.raises(UsageError, match="other choices: all_matmuls False, not True"):
        api.build_engine(source, TURING, precision="fp16")
    with pytest.raises(EngineError, match=r"in fp32.*sm75: .*scores"):
        api.build_engine(broken, TURING)


def test_a_turing_gpu_here_is_a_target(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turing = replace(NO_GPU, gpu=Gpu(name="a Turing card", target="sm75"))
    monkeypatch.setattr("samdec_export.backends.machine.look", lambda: turing)
    source = Path(shutil.copy(typed(), tmp_path))
    with pytest.raises(UsageError, match="sm75 in fp16 only"):
        api.build_engine(source, BuildOptions())
    assert products_of(api.build_engine(source, BuildOptions(), precision="fp16").engine.record) == {"HALF"}


def test_choices_of_an_earlier_conversion_are_not_lost(typed: Typed, tmp_path: Path) -> None:
    source = Path(shutil.copy(typed(), tmp_path))
    own = api.convert(source, replace(FP16, keep_fp32=("Softmax",), margin=8.0), validate=False).artifact
    with pytest.raises(UsageError, match=r"keep_fp32 \['Softmax'\], not \[\]; margin 8.0, not 4.0"):
        api.build_engine(source, RTX, precision="fp16")
    assert open_artifact(own.path).sha256 == own.sha256
    assert api.build_engine(own.path, RTX, precision="fp16").engine.record.onnx_sha256 == own.sha256


def test_the_sidecar_says_everything(typed: Typed, tmp_path: Path) -> None:
    path = typed("fp16", graph="prompts")
    wanted = replace(RTX, workspace=4096, profiles=(parse_profile("prompts=1:1:2"), parse_profile("points=4:8:16")))
    done = api.build_engine(path, wanted, out=tmp_path)
    source = open_artifact(path)
    said = json.loads(done.engine.sidecar.read_text())
    assert said["file"] == done.engine.path.name
    assert said["onnx_sha256"] == source.sha256
    assert said["source"] == source.record.to_json()
    assert (said["engine"], said["targets"]) == ("rtx", ["sm89"])
    assert said["version"].count(".") >= 2
    assert said["settings"] | {"workspace_mb": 4096, "tf32": False, "strongly_typed": True} == said["settings"]
    first, second = ({dim["name"]: dim for dim in profile} for profile in said["profiles"])
    assert (first["prompts"]["max"], first["points"]["max"], second["points"]["min"]) == (2, 16, 4)
    axes = {tensor["name"]: tensor["shape"] for tensor in said["tensors"]}
    assert axes == {
        spec.name: [*spec.labels] for spec in (*source.record.signature.inputs, *source.record.signature.outputs)
    }
    assert {tensor["dtype"] for tensor in said["tensors"]} == {"FLOAT", "INT64"}
    assert said["seconds"] > 0
    assert "tensorrt-rtx-cu13" in said["tools"]
    assert {path.name for path in tmp_path.iterdir()} == {done.engine.path.name, done.engine.sidecar.name}


def test_a_conversion_that_failed_fails_again(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(shutil.copy(typed(), tmp_path))
    monkeypatch.setitem(TOLERANCES, "fp16", replace(TOLERANCES["fp16"], logits=1e-9, iou_predictions=1e-9))
    for _ in range(2):  # the second time the conversion is there
        with pytest.raises(ValidationError):
            api.build_engine(source, RTX, precision="fp16")
        assert source.with_name("sam_tiny.decoder.fp16.onnx").exists()
        assert not list(tmp_path.glob("*.engine"))


def test_a_product_left_in_fp32_by_mistake_fails(typed: Typed, tmp_path: Path) -> None:
    source, record = typed(), open_artifact(typed("fp16")).record
    products = (node.name for node in onnx.load(source).graph.node if node.op_type == "MatMul")
    node = next(name for name in products if name not in record.kept)
    broken = tmp_path / record.file_name
    autocast(source, broken, "fp16", keep={*record.kept, node})
    stamp(broken, record.to_metadata())
    with pytest.raises(EngineError, match=f"1 of .* {node} \\(FLOAT\\)"):
        api.build_engine(broken, RTX)
    stamp(broken, replace(record, kept={**record.kept, node: "asked for"}).to_metadata())
    kept = {node.name for node in onnx.load(source).graph.node if node.op_type in ("MatMul", "Gemm")} & {*record.kept}
    assert api.build_engine(broken, RTX).engine.record.histogram["MATRIX_MULTIPLY"]["FLOAT"] == len(kept) + 1


def test_a_file_that_is_fp16_in_name_only_fails(typed: Typed, tmp_path: Path) -> None:
    broken = Path(shutil.copy(typed(), tmp_path))
    stamp(broken, open_artifact(typed("fp16")).record.to_metadata())
    with pytest.raises(EngineError, match="would not be computed in fp16"):
        api.build_engine(broken, RTX)


def test_normalisation_in_fp16_fails(typed: Typed, tmp_path: Path) -> None:
    unsafe = api.convert(typed(**REFERENCE), replace(FP16, protect=False), out=tmp_path, validate=False).artifact.path
    with pytest.raises(EngineError, match="normalisation in fp16"):
        api.build_engine(unsafe, RTX)
    assert not list(tmp_path.glob("*.engine"))


def test_no_transposed_convolution_in_bf16(typed: Typed, tmp_path: Path) -> None:
    source = open_artifact(typed(**REFERENCE))
    record = replace(source.record, precision="bf16", kept=keep_by_rule(source.path))
    autocast(source.path, tmp_path / record.file_name, "bf16", keep=record.kept)
    stamp(tmp_path / record.file_name, record.to_metadata())
    with pytest.raises(EngineError, match=r"ConvTranspose .* in bf16.*Convert the fp32 file to bf16"):
        api.build_engine(tmp_path / record.file_name, RTX)
    with pytest.raises(EngineError, match="cannot build"):  # the day this builds, the rule can go
        build_engine(tmp_path / record.file_name, "rtx", record.signature, RTX)


def test_tf32_is_off_unless_asked_for(typed: Typed, tmp_path: Path) -> None:
    assert api.build_engine(typed(), replace(RTX, tf32=True), out=tmp_path).engine.record.settings["tf32"] is True


# What the parser and the builder refuse


def tensor(name: str, shape: tuple[Any, ...]) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, content="embedding")


def one_node(path: Path, node: onnx.NodeProto, shape: tuple[int, ...], constants: Any = None) -> tuple[Path, Signature]:
    x = np.zeros(shape, np.float32)
    write(path, [node], {"x": x}, {"y": TensorProto.FLOAT}, constants)
    return path, Signature(inputs=(tensor("x", shape),), outputs=(tensor("y", shape),))


def test_a_corrupt_file(tmp_path: Path, typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(typed().read_bytes()[:20_000])
    with pytest.raises(EngineError, match="MODEL_DESERIALIZE_FAILED"):
        build_engine(path, "rtx", open_artifact(typed()).record.signature, RTX)
    code, _, err = call(capsys, "trt", path)
    assert (code, is_one_clear_line(err)) == (4, True)


def test_a_custom_operator(tmp_path: Path) -> None:
    node = helper.make_node("Fancy", ["x"], ["y"], name="fancy_1", domain="somebody")
    with pytest.raises(EngineError, match="INVALID_NODE at Fancy fancy_1") as caught:
        build_engine(
            *one_node(tmp_path / "custom.onnx", node, (2, 2))[:1], "rtx", Signature(inputs=(), outputs=()), RTX
        )
    assert "cuda" not in caught.value.message.lower(), "that there is no GPU is not the reason"


def test_a_reshape_to_nine_axes(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape_1")
    path, signature = one_node(tmp_path / "nine.onnx", node, (2, 2), {"shape": np.array([2, 2] + [1] * 7)})
    with pytest.raises(EngineError, match=r"INVALID_NODE at Reshape reshape_1.*\(9\)"):
        build_engine(path, "rtx", signature, RTX)


def changed(typed: Typed, folder: Path, change: Callable[[onnx.ModelProto], None], **options: Any) -> Path:
    """A tiny export with its record, and with a change made to its graph."""
    source = typed(**options)
    model = onnx.load(source)
    change(model)
    onnx.save(model, folder / source.name)
    return folder / source.name


def add_nine_axes(model: onnx.ModelProto) -> None:
    shape = helper.make_node("Constant", [], ["nine"], value_ints=[1, -1] + [1] * 7, name="nine_axes")
    model.graph.node.insert(0, helper.make_node("Reshape", ["image_embeddings", "nine"], ["rank9"], name="to_nine"))
    model.graph.node.insert(0, shape)


def add_one_hot(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "OneHot"


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "elsewhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_nine_axes, "rank9 has rank 9.*merge some"),
        (add_one_hot, "OneHot .*repeat_interleave"),
        (rename_input, r"another graph: inputs are \['elsewhere'"),
    ],
)
def test_what_is_known_to_fail_is_said_before_the_build(
    typed: Typed, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        api.build_engine(changed(typed, tmp_path, change), RTX)


def test_attention_in_fp32_is_said_before_the_build(tmp_path: Path) -> None:
    from samdec_export.backends.tensorrt.lint import lint_for_engine

    shape = (1, 2, 4, 8)
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"], name="attention_1")
    write(tmp_path / "a.onnx", [node], {"x": np.zeros(shape, np.float32)}, {"y": TensorProto.FLOAT}, opset=23)
    with pytest.raises(EngineError, match=r"Attention attention_1 in fp32.*opset 20"):
        lint_for_engine(tmp_path / "a.onnx", Signature(inputs=(tensor("x", shape),), outputs=()))


def test_meta_is_refused_with_the_way_out(typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "trt", typed(graph="meta"), "--engine", "rtx", "--out", tmp_path)
    assert (code, is_one_clear_line(err)) == (5, True)
    assert "orig_im_size" in err
    assert "--graph prompts" in err


def test_too_small_a_workspace(typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("trt", typed(graph="prompts"), "--engine", "rtx", "--targets", "sm89", "--out", tmp_path)
    code, _, err = call(capsys, *words, "--workspace", "1")
    assert (code, is_one_clear_line(err)) == (5, True)
    assert "more than --workspace 1" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--targets", "sm90"], "'sm90'"),
        (["--targets", "sm75"], "sm75 in fp16 only"),
        (["--profile", "batch=0:1:2"], "1 <= MIN"),
        (["--profile", "batch=1:1:65"], "leaves the range 1 to 64"),
        (["--profile", "images=1:1:2"], "no dynamic axis 'images'"),
        (["--profile", "batch=1:1:2 batch=1:1:2"], "each axis one range"),
        (["--timing-cache", "cache"], "--timing-cache has no effect"),
        (["--hardware-compat"], "--hardware-compat has no effect"),
        (["--opt-level", "6"], "is above 5"),
        (["--workspace", "0"], "is below 1"),
        (["--fp16", "--bf16"], "one precision"),
    ],
)
def test_wrong_options_are_said_before_the_build(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, err = call(capsys, "trt", typed(), "--engine", "rtx", "--out", tmp_path, *words)
    assert (code, is_one_clear_line(err)) == (2, True)
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["version_compat", "strip_weights", "refit"])
def test_options_that_need_a_gpu(option: str) -> None:
    wanted = BuildOptions(
        version_compat=option == "version_compat", strip_weights=option == "strip_weights", refit=option == "refit"
    )
    with pytest.raises(UsageError, match="needs a GPU"):
        engines.check_options("rtx", wanted, "fp32", NO_GPU)
    engines.check_options("rtx", wanted, "fp32", replace(NO_GPU, gpu=ADA))


def test_tensorrt_takes_no_targets() -> None:
    with pytest.raises(UsageError, match="no targets"):
        engines.check_options("tensorrt", RTX, "fp32", NO_GPU)


def test_targets_are_sorted_and_each_once() -> None:
    assert parse_targets("sm120, SM86,sm86") == ("sm86", "sm120")


def test_a_folder_that_cannot_be_written_to(typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    code, _, err = call(capsys, "trt", typed(), "--engine", "rtx", "--out", tmp_path / "file" / "folder")
    assert (code, is_one_clear_line(err)) == (2, True)


KILL = """
import os, signal, sys
from samdec_export.cli import app as cli
from samdec_export.backends.tensorrt.messages import Monitor

step = Monitor._step
def kill(self, *args):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    import time; time.sleep(0.2)
    return step(self, *args)
Monitor._step = kill
cli.main(["trt", sys.argv[2], "--engine", "rtx", "--targets", "sm89", "--out", sys.argv[3]])
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 130), ("SIGKILL", -9)])
def test_killed_in_mid_build(typed: Typed, tmp_path: Path, name: str, code: int) -> None:
    old = tmp_path / "sam_tiny.decoder.fp32.sm89.engine"
    old.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", KILL, name, typed(), tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == b"old"
