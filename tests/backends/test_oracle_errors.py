"""What the oracle refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import write

from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.core.errors import GraphError

ONES = np.ones((2, 3), np.float32)
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def one_node(path: Path, op: str, *names: str, opset: int = 20, elem: int = FLOAT, **attributes: Any) -> Path:
    node = helper.make_node(op, list(names or ("x",)), ["y"], name="node", **attributes)
    feeds: dict[str, Any] = {"x": ONES, "h": ONES.astype(np.float16)}
    used = {name: feeds[name] for name in (names or ("x",)) if name in feeds}
    return write(path / "one.onnx", [node], used, {"y": elem}, opset=opset)


@pytest.mark.parametrize(
    ("op", "names", "attributes", "message"),
    [
        ("Det", ("x",), {}, "no operator Det"),
        ("Add", ("x", "x"), {"domain": "com.example"}, "no operator Add"),
        ("Gelu", ("x",), {"approximate": "tanh"}, "no Gelu with approximate=tanh"),
        ("LayerNormalization", ("x", "x"), {"stash_type": 16}, "no LayerNormalization with stash_type=16"),
        ("Resize", ("x",), {"mode": "cubic"}, "no Resize with mode=cubic"),
        ("Resize", ("x",), {}, "no Resize with mode=None"),
        ("Conv", ("x", "x"), {"pads": [1, 1, 1, 1]}, "no Conv with pads"),
        ("Conv", ("x", "x"), {"group": 2}, "no Conv with group=2"),
        ("Cast", ("x",), {"to": TensorProto.FLOAT8E4M3FN}, "does not compute in float8_e4m3fn"),
        ("Cast", ("x",), {"to": 999}, "unknown element type 999"),
        ("Relu", ("nothing",), {}, "reads nothing, which nothing before it makes"),
    ],
)
def test_what_is_not_implemented(
    tmp_path: Path, op: str, names: tuple[str, ...], attributes: dict[str, Any], message: str
) -> None:
    path = one_node(tmp_path, op, *names, **attributes)
    with pytest.raises(GraphError, match=message):
        OracleRunner(path)


@pytest.mark.parametrize("opset", [16, 23])
def test_other_opsets(tmp_path: Path, opset: int) -> None:
    with pytest.raises(GraphError, match=f"opset {opset}; the oracle knows 17 to 22"):
        OracleRunner(one_node(tmp_path, "Relu", opset=opset))


def test_more_than_one_output(tmp_path: Path) -> None:
    node = helper.make_node("LayerNormalization", ["x", "x"], ["y", "mean"])
    with pytest.raises(GraphError, match="one output a node"):
        OracleRunner(write(tmp_path / "two.onnx", [node], {"x": ONES}, {"y": FLOAT}))


def test_an_output_that_nothing_makes(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(GraphError, match="the graph's output reads z"):
        OracleRunner(write(tmp_path / "output.onnx", [node], {"x": ONES}, {"z": FLOAT}))


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", None])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GraphError, match="is not an ONNX file" if content is not None else "cannot be read"):
        OracleRunner(path)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "x is missing"),
        ({"x": ONES, "z": ONES}, "there is no input z"),
        ({"x": ONES.astype(np.float64)}, "x is float64, not float32"),
        ({"x": ONES[:1]}, r"x has shape \(1, 3\), not \(2, 3\)"),
        ({"x": ONES[0]}, r"x has 1 axes, not 2 \(2, 3\)"),
    ],
)
def test_wrong_feeds(tmp_path: Path, feeds: dict[str, Any], message: str) -> None:
    runner = OracleRunner(one_node(tmp_path, "Relu"))
    assert runner.run({"x": ONES})["y"].shape == (2, 3)
    with pytest.raises(GraphError, match=message):
        runner.run(feeds)


def test_two_inputs_that_disagree_about_an_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "add.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], {"x": ONES, "z": ONES}, {"y": 1})
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    runner = OracleRunner(path)
    assert runner.run({"x": ONES[:1], "z": ONES[:1]})["y"].shape == (1, 3)
    with pytest.raises(GraphError, match="z has shape"):
        runner.run({"x": ONES, "z": ONES[:1]})


def test_a_node_that_mixes_types(tmp_path: Path) -> None:
    runner = OracleRunner(one_node(tmp_path, "Add", "x", "h"))
    with pytest.raises(GraphError, match="Add node mixes float16 and float32"):
        runner.run({"x": ONES, "h": ONES.astype(np.float16)})


def test_a_type_that_is_not_the_declared_one(tmp_path: Path) -> None:
    runner = OracleRunner(one_node(tmp_path, "Relu", elem=HALF))
    with pytest.raises(GraphError, match="gives float32, and the file declares float16 for y"):
        runner.run({"x": ONES})


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    runner = OracleRunner(one_node(tmp_path, "MatMul", "x", "x"))
    with pytest.raises(GraphError, match=r"MatMul node of shapes \(2, 3\), \(2, 3\) failed"):
        runner.run({"x": ONES})
