from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import call, is_one_clear_line
from conftest import Export
from onnx import TensorProto, helper, numpy_helper

from samdec_export.core.errors import GraphError, NoRecordError, UsageError
from samdec_export.core.feeds import make_feeds
from samdec_export.core.runner import Array
from samdec_export.export.onnx_file import open_artifact
from samdec_export.parity.sweeps import sweep
from samdec_export.precision.audit import audit
from samdec_export.precision.ranges import TensorRange, audit_ranges
from samdec_export.precision.stepwise import StepwiseGraph

FP16_LARGEST = 65504.0


def save(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, Array] | None = None, dtype: int = 1) -> Path:
    """A foreign file: input `x` (rows, 4), output that of the last node, opset 18."""
    x = helper.make_tensor_value_info("x", dtype, ["rows", 4])
    y = helper.make_tensor_value_info(nodes[-1].output[0], dtype, None)
    constants = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def measure(path: Path, *rows: Any, **options: Any) -> dict[str, TensorRange]:
    found = audit_ranges(path, [{"x": np.array(row, np.float32).reshape(-1, 4)} for row in rows], **options)
    return {item.tensor: item for item in found}


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """Return (w * x)**2, with w = -3."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["wx"], "scale"), helper.make_node("Mul", ["wx", "wx"], ["y"])]
    return save(tmp_path / "square.onnx", nodes, {"w": np.array([-3], np.float32)})


@pytest.fixture
def planted(export: Export, tmp_path: Path) -> Path:
    """sam_tiny with the first weight of its upscaling a thousand times as large: that of one row of pixels."""
    model = onnx.load(export().artifact.path)
    (weight,) = (item for item in model.graph.initializer if item.name == "decode.upscaling.first.0")
    weight.CopyFrom(numpy_helper.from_array(1000 * numpy_helper.to_array(weight), weight.name))
    onnx.save(model, tmp_path / "planted.onnx")
    return tmp_path / "planted.onnx"


def test_ranges_are_those_of_a_closed_form_over_every_case(square: Path) -> None:
    found = measure(square, [0, 1, -2, 0.5], [[100, 0, 0, 0], [1e-3, 1, 1, 1]])
    assert list(found) == ["x", "w", "wx", "y"]
    assert [item.kind for item in found.values()] == ["input", "weight", "node", "node"]
    assert [item.absmax for item in found.values()] == [100, 3, 300, 90_000]
    assert found["y"].smallest == pytest.approx(9e-6)
    assert (found["y"].values, found["y"].nonzero) == (12, 8)
    assert found["y"].below == {"fp32": 0, "fp16": 1, "bf16": 0}
    assert found["y"].below_normal("fp16") == 1 / 8
    assert (found["wx"].node, found["wx"].op, found["y"].node) == ("scale", "Mul", "y")
    assert found["w"].values == 1, "a weight is looked at once, whatever the number of cases"


def test_a_range_is_judged_against_a_precision(square: Path) -> None:
    found = measure(square, [0, 0, 0, 100])
    assert found["y"].overflow("fp16")
    assert not found["y"].overflow("bf16")
    assert found["y"].margin("fp16") == FP16_LARGEST / 90_000
    assert not found["wx"].overflow("fp16")
    nothing = measure(square, [0, 0, 0, 0])["y"]
    assert (nothing.absmax, nothing.smallest, nothing.margin("fp16")) == (0, None, math.inf)
    assert nothing.below_normal("fp16") == 0


def test_the_largest_number_that_fits_is_no_overflow(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    for value, beyond in ((FP16_LARGEST, False), (np.nextafter(np.float32(FP16_LARGEST), np.float32(np.inf)), True)):
        assert measure(path, [value, 0, 0, 0])["y"].overflow("fp16") == beyond


def test_what_is_not_finite_is_counted_and_no_magnitude(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Log", ["x"], ["y"])])
    found = measure(path, [0, -1, 1, math.e**2], [-1, -1, -1, -1])["y"]  # -inf, nan, 0, 2; then four nan
    assert (found.nonfinite, found.values, found.nonzero) == (6, 8, 1)
    assert found.absmax == pytest.approx(2)


def test_the_squares_of_a_layer_normalisation(tmp_path: Path) -> None:
    norm = helper.make_node("LayerNormalization", ["scaled", "ones"], ["y"], "norm", axis=1)
    nodes = [helper.make_node("Mul", ["x", "hundred"], ["scaled"]), norm]
    weights = {"hundred": np.array([100], np.float32), "ones": np.ones(4, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, weights)
    found = measure(path, [[1, 1, 1, 5], [7, 7, 7, 7]])  # mean 200: deviations -100 and 300
    assert found["y"].squared_absmax == 300**2
    assert found["y"].squares_overflow("fp16")
    assert not found["y"].squares_overflow("bf16")
    assert not found["y"].overflow("fp16")
    assert found["y"].reach == 300**2
    assert found["scaled"].squared_absmax is None
    assert measure(path, [[1, 1, 1, 2]])["y"].squared_absmax == 75**2
    assert measure(path, [[1, 1, math.inf, 1], [2, 2, 2, 6]])["y"].squared_absmax == 300**2


def test_the_planted_overflow_is_named(export: Export, planted: Path) -> None:
    model = onnx.load(planted)
    norms = [node.name for node in model.graph.node if "decode.upscaling.norm.weight" in node.input]
    assert len(norms) == 2, "a norm for each row of pixels"
    found = audit(planted)
    (name,) = {item.node for item in found.overflowing_squares} & {*norms}
    assert [item.node for item in found.overflowing_squares] == [name]
    assert found.worst(1)[0].node == name
    assert found.largest_square == found.worst(1)[0]
    assert found.worst(1)[0].absmax < 10, "the output itself tells nothing"
    sound = audit(export().artifact.path)
    assert not sound.overflowing_squares
    assert not sound.overflowing
    assert len(sound.cases) == 9, "the usual ones of a quick sweep"
    assert not audit(planted, "bf16").overflowing_squares


def test_every_float_tensor_is_covered_and_as_the_whole_graph_gives_it(export: Export) -> None:
    path = export().artifact.path
    signature = open_artifact(path).record.signature
    feeds = make_feeds(signature, sweep(signature, "quick")[-1], seed=3)
    found = {item.tensor: item for item in audit_ranges(path, [feeds])}
    model = onnx.load(path)
    made = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = {**feeds, **dict(zip(made, session.run(None, feeds), strict=True))}
    values |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    floats = {name: value for name, value in values.items() if value.dtype == np.float32}
    assert found.keys() == floats.keys()
    assert len(floats) > 300
    for name, value in floats.items():
        assert found[name].absmax == np.abs(value).max(), name
        assert found[name].values == value.size


def test_results_do_not_depend_on_grouping(export: Export) -> None:
    path = export().artifact.path
    signature = open_artifact(path).record.signature
    feeds = [make_feeds(signature, case) for case in sweep(signature, "quick")[:2]]
    whole = audit_ranges(path, feeds, nodes_per_run=10_000)
    for size in (1, 7, 16):
        assert audit_ranges(path, feeds, nodes_per_run=size) == whole


def test_only_what_is_still_needed_is_kept(tmp_path: Path) -> None:
    names = ["x", *"abcdefgh"]
    nodes = [helper.make_node("Relu", [taken], [made]) for taken, made in itertools.pairwise(names)]
    graph = StepwiseGraph(onnx.load(save(tmp_path / "m.onnx", nodes)), tmp_path, nodes_per_run=1)
    held = [len(values) for _, values in graph.run({"x": np.zeros((1, 4), np.float32)})]
    assert max(held) == 2


def test_the_command_shows_the_worst_and_draws(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "ranges", planted, "--top", "3", "--plot", tmp_path / "new" / "r.png")
    assert (code, err) == (0, ""), "a report: an overflow is no failure"
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert "LayerNormalization" in rows[0]
    assert "0 would overflow fp16 (above 65504)" in out
    assert "the variance of 1 would overflow" in out
    assert (tmp_path / "new" / "r.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.png"]
    for precision in ("fp16", "bf16"):
        report = json.loads(
            call(capsys, "ranges", planted, "--for", precision, "--case", "batch=1,points=2,first=1", "--json")[1]
        )
        assert report["cases"] == ["batch=1,points=2,first=1"]
        assert len(report["overflowing_squares"]) == (precision == "fp16")
        assert sum(item["squares_overflow"] for item in report["tensors"]) == (precision == "fp16")


def test_a_picture_of_what_overflows_and_of_nothing(square: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("large", 1e4), ("zero", 0.0), ("infinite", math.inf)):
        feeds, picture = square.parent / f"{name}.npz", square.parent / f"{name}.svg"
        np.savez(feeds, x=np.full((2, 4), value, np.float32))
        code, out, err = call(capsys, "ranges", square, "--feeds", feeds, "--plot", picture)
        assert (code, err) == (0, "")
        assert ("2 would overflow" if name == "large" else "0 would overflow") in out.replace("1 would", "2 would")
        assert ("Infinite or not a number in fp32 already: 3 tensors, the first x." in out) == (name == "infinite")
        assert "<svg" in picture.read_text()


def test_a_foreign_file_needs_recorded_inputs(square: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoRecordError, match="no record of what its inputs mean"):
        audit(square)
    code, _, err = call(capsys, "ranges", square)
    assert code == 4
    assert is_one_clear_line(err)
    assert "--feeds" in err
    recorded: dict[str, Any] = {"a/x": np.ones((1, 4), np.float32), "b/x": np.ones((3, 4), np.float32)}
    np.savez(square.parent / "f.npz", **recorded)
    assert audit(square, feeds=square.parent / "f.npz").cases == ("a", "b")


WRONG_FEEDS = [
    ({"x": np.zeros((2, 5), np.float32)}, "x"),
    ({"x": np.zeros((2, 4), np.float64)}, "float64"),
    ({"x": np.zeros(4, np.float32)}, "x"),
    ({"z": np.zeros((2, 4), np.float32)}, "input x is missing; there is no input z"),
]


@pytest.mark.parametrize(("feeds", "said"), WRONG_FEEDS, ids=["shape", "dtype", "rank", "name"])
def test_feeds_that_do_not_match_are_told(
    square: Path, capsys: pytest.CaptureFixture[str], feeds: dict[str, Array], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        audit_ranges(square, [feeds])
    with pytest.raises(UsageError, match="no inputs"):
        audit_ranges(square, [])
    np.savez(square.parent / "f.npz", **feeds)  # type: ignore[arg-type]  # savez has an option of its own
    code, _, err = call(capsys, "ranges", square, "--feeds", square.parent / "f.npz")
    assert code == 2
    assert is_one_clear_line(err)
    assert said in err


def half(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], dtype=TensorProto.FLOAT16)


def bfloat(path: Path) -> Path:
    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["b"], ["y"], to=1),
    ]
    return save(path, nodes)


def quantised(path: Path) -> Path:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    return save(path, nodes, {"w": np.ones((4, 4), np.int8), "scale": np.array(0.1, np.float32)})


def branching(path: Path) -> Path:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    node = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
    return save(path, [node], {"yes": np.array(True)})


def unsorted(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])])


def unknown(path: Path) -> Path:
    return save(path, [helper.make_node("Wish", ["x"], ["y"])])


def without_floats(path: Path) -> Path:
    return save(path, [helper.make_node("Neg", ["x"], ["y"])], dtype=TensorProto.INT64)


def text(path: Path) -> Path:
    path.write_text("not a model")
    return path


REFUSED = [
    (half, "already fp16. The fp32 file that it was made from is what is needed"),
    (bfloat, "already bf16"),
    (quantised, "is quantised"),
    (branching, "control flow .If choice"),
    (unsorted, "a is taken before it is made"),
    (unknown, "ONNX Runtime refuses"),
    (without_floats, "holds no float32 tensor"),
    (text, "is not an ONNX file"),
    (Path, "cannot be read"),  # nothing is made
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_audited_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, said: str
) -> None:
    path = make(tmp_path / "m.onnx")
    dtype = {half: np.float16, without_floats: np.int64}.get(make, np.float32)
    with pytest.raises(GraphError, match=said):
        audit_ranges(path, [{"x": np.ones((1, 4), dtype)}])
    np.savez(tmp_path / "f.npz", x=np.ones((1, 4), dtype))
    before = set(tmp_path.iterdir())
    code, out, err = call(capsys, "ranges", path, "--feeds", tmp_path / "f.npz", "--plot", tmp_path / "r.png")
    assert (code, out) == (4, "")
    assert is_one_clear_line(err)
    assert set(tmp_path.iterdir()) == before


def test_a_picture_that_cannot_be_written_is_told_at_once(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    path = export().artifact.path
    before = {item: item.stat().st_mtime_ns for item in path.parent.iterdir()}
    (path.parent / "link.png").symlink_to(path)
    for target in (path.parent / "r.jpeg", path.parent / "link.png", Path("/proc/nowhere/r.png"), path / "r.png"):
        code, out, err = call(capsys, "ranges", path, "--plot", target)
        assert (code, out) == (2, "")
        assert is_one_clear_line(err)
    os.unlink(path.parent / "link.png")
    assert {item: item.stat().st_mtime_ns for item in path.parent.iterdir()} == before


def test_a_run_that_fails_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(
        tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "to"], ["y"])], {"to": np.array([3, 4], np.int64)}
    )
    np.savez(tmp_path / "f.npz", x=np.ones((2, 4), np.float32))
    code, _, err = call(capfd, "ranges", path, "--feeds", tmp_path / "f.npz")
    assert code == 4
    assert is_one_clear_line(err)
    assert "ONNX Runtime failed on" in err
