"""What rounds nothing, or only fp32: each operator's variants as ONNX Runtime runs them, and again in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from onnx import TensorProto
from test_oracle_operators import BINARY, SHAPED, UNARY, one_node, run

from samdec_export.backends.oracle.arithmetic import ARITHMETIC
from samdec_export.backends.oracle.moves import MOVES
from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner

Array = NDArray[Any]

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
FLAGS = X > 0


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


CASES: dict[str, tuple[str, list[Array | None], dict[str, Any]]] = {
    "and": ("And", [FLAGS, X > 0.5], {}),
    "argmax": ("ArgMax", [X], {"axis": 2, "keepdims": 0, "elem": INT64}),
    "cast to int": ("Cast", [3 * X], {"to": INT64, "elem": INT64}),
    "cast from bool": ("Cast", [FLAGS], {"to": TensorProto.FLOAT, "elem": TensorProto.FLOAT}),
    "cast like": ("CastLike", [3 * X, ints(0)], {"elem": INT64}),
    "clip": ("Clip", [X, np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    "concat": ("Concat", [X, X[:, :1]], {"axis": 1}),
    "constant of shape": ("ConstantOfShape", [ints(2, 3)], {"elem": TensorProto.FLOAT}),
    "convolution": ("Conv", [X, X[:, :3, :2, :2], X[0, 0, 0, :2]], {"strides": [2, 2]}),
    "convolution that overlaps": ("Conv", [X, X[:, :3, :2, :3]], {}),
    "transposed convolution": ("ConvTranspose", [X, X[0, :, :2, :2][:, None], X[0, 0, 0, :1]], {"strides": [2, 2]}),
    "depth to space": ("DepthToSpace", [X.reshape(1, 12, 2, 5)], {"blocksize": 2}),
    "depth to space by columns": ("DepthToSpace", [X.reshape(1, 12, 2, 5)], {"blocksize": 2, "mode": "CRD"}),
    "integer division": ("Div", [ints(7, -7, 7, -7), ints(2, 2, -2, -2)], {}),
    "equal": ("Equal", [X, np.abs(X)], {"elem": BOOL}),
    "expand both ways": ("Expand", [X[:, :1], ints(3, 1, 5)], {}),
    "gather": ("Gather", [X, ints(-1, 0)], {"axis": 2}),
    "gather a scalar": ("Gather", [X, np.array(1)], {"axis": 3}),
    "gather elements": ("GatherElements", [X, np.array([[[[3, -1]]]])], {"axis": 3}),
    "gemm": ("Gemm", [X[0, 0], X[1, 1]], {"transA": 1, "alpha": 0.5}),
    "greater": ("Greater", [X, -X], {"elem": BOOL}),
    "greater or equal": ("GreaterOrEqual", [X, np.abs(X)], {"elem": BOOL}),
    "identity": ("Identity", [X], {}),
    "layer normalization": ("LayerNormalization", [X, X[0, 0]], {"axis": -2, "epsilon": 1e-3}),
    "less": ("Less", [X, -X], {"elem": BOOL}),
    "less or equal": ("LessOrEqual", [X, np.abs(X)], {"elem": BOOL}),
    "matmul with a vector": ("MatMul", [X, X[0, 0, 0]], {}),
    "matmul of transposed views": ("MatMul", [X.swapaxes(1, 3), X.swapaxes(1, 3).swapaxes(2, 3)], {}),
    "maximum of three": ("Max", [X, -X, X[0]], {}),
    "not": ("Not", [FLAGS], {}),
    "or": ("Or", [FLAGS, X < -0.5], {}),
    "power": ("Pow", [np.abs(X), np.array([3.5], np.float32)], {}),
    "power of integers": ("Pow", [ints(2, 3), ints(5, 2)], {}),
    "range": ("Range", list(np.array([1, 4.2, 0.5], np.float32)), {}),
    "range down": ("Range", [np.array(5), np.array(-3), np.array(-2)], {}),
    "reduce max by attribute": ("ReduceMax", [X], {"axes": [1, -1], "keepdims": 0, "opset": 17}),
    "reduce min": ("ReduceMin", [X, ints(0)], {}),
    "reduce sum of all": ("ReduceSum", [X], {"keepdims": 0}),
    "reduce nothing": ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    "reshape": ("Reshape", [X, ints(0, -1, 2)], {}),
    "reshape to zero": ("Reshape", [X[:0], ints(0, 7)], {"allowzero": 1}),
    "resize by scales": ("Resize", [X, None, np.array([1, 1, 2, 0.6], np.float32)], {"mode": "linear"}),
    "resize by sizes": ("Resize", [X, None, None, ints(2, 3, 7, 3)], {"mode": "linear"}),
    "shape": ("Shape", [X], {"start": 1, "end": -1, "elem": INT64}),
    "slice": ("Slice", [X, ints(1, -3), ints(99, -1), ints(1, -1)], {}),
    "slice backwards": ("Slice", [X, ints(-1), ints(np.iinfo(np.int64).min), ints(3), ints(-2)], {}),
    "space to depth": ("SpaceToDepth", [X.reshape(1, 3, 4, 10)], {"blocksize": 2}),
    "squeeze": ("Squeeze", [X[:, :1], ints(-3)], {}),
    "squeeze all": ("Squeeze", [X[:1, :1]], {}),
    "transpose": ("Transpose", [X], {"perm": [2, 0, 3, 1]}),
    "transpose backwards": ("Transpose", [X], {}),
    "unsqueeze": ("Unsqueeze", [X, ints(0, -1)], {}),
    "where": ("Where", [FLAGS, X, X[:1]], {"elem": TensorProto.FLOAT}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_variant_is_what_onnx_runtime_makes_of_it(tmp_path: Path, name: str) -> None:
    op, inputs, attributes = CASES[name]
    path, feeds = one_node(tmp_path, op, *inputs, **attributes)
    expected, found = OrtRunner(path).run(feeds)["y"], OracleRunner(path).run(feeds)["y"]
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name, (op, _, _) in CASES.items() if op in MOVES])
def test_moves_move_bf16_as_they_move_fp32(tmp_path: Path, name: str) -> None:
    op, inputs, attributes = CASES[name]
    low = [array.astype(bfloat16) if array is not None and array.dtype == np.float32 else array for array in inputs]
    same = {key: value for key, value in attributes.items() if key != "elem" or value != TensorProto.FLOAT}
    if op == "Where":
        same["elem"] = TensorProto.BFLOAT16
    if op in ("Cast", "ConstantOfShape"):
        same = attributes  # their type is their own
    found = run(tmp_path, op, *low, **same)
    rounded = [array.astype(np.float32) if array is not None and array.dtype == bfloat16 else array for array in low]
    expected = run(tmp_path, op, *rounded, **attributes)
    if expected.dtype == np.float32 and op not in ("Cast", "ConstantOfShape"):
        assert found.dtype == bfloat16
    np.testing.assert_array_equal(found.astype(expected.dtype), expected)


def test_every_operator_is_tested() -> None:
    tested = {op for op, _, _ in CASES.values()} | set(BINARY) | set(SHAPED) | set(UNARY)
    assert {*ARITHMETIC, *MOVES} - tested == {"Constant"}, "which every export holds"
