"""The oracle's operators alone: one rounding each, and infinity where the type ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_graphs import DTYPE, ELEM, write

from samdec_export.backends.oracle import runner as oracle_module
from samdec_export.backends.oracle.arithmetic import erf
from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.dtypes import FORMATS, FloatFormat, Precision

Array = NDArray[Any]

LOW: tuple[Precision, ...] = ("fp16", "bf16")
SLACK = 2.0**-17
"""What float32 within a node may add, in parts of the largest result: far below half a unit of either type."""


def run(
    folder: Path, op: str, *inputs: Array | None, elem: int | None = None, opset: int = 20, **attributes: Any
) -> Array:
    """The output of a graph of one node."""
    path, feeds = one_node(folder, op, *inputs, elem=elem, opset=opset, **attributes)
    return OracleRunner(path).run(feeds)["y"]


def one_node(
    folder: Path, op: str, *inputs: Array | None, elem: int | None = None, opset: int = 20, **attributes: Any
) -> tuple[Path, dict[str, Array]]:
    """The graph and its feeds; the output has the first input's type unless `elem` says otherwise."""
    feeds = {f"x{index}": np.asarray(array) for index, array in enumerate(inputs) if array is not None}
    names = [name if (name := f"x{index}") in feeds else "" for index in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], name="node", **attributes)
    elem = elem or helper.np_dtype_to_tensor_dtype(feeds["x0"].dtype)
    return write(folder / "one.onnx", [node], feeds, {"y": elem}, opset=opset), feeds


def every(precision: Precision) -> Array:
    """Every number of the type, subnormals and infinities among them, without NaN."""
    numbers: Array = np.arange(1 << 16, dtype=np.uint16).view(DTYPE[precision])
    with np.errstate(invalid="ignore"):
        known: Array = numbers[~np.isnan(numbers)]
    return known


def unit(exact: Array, kind: FloatFormat) -> Array:
    """The distance between neighbours of the type about each number."""
    magnitude = np.maximum(np.abs(np.where(np.isfinite(exact), exact, 1)), kind.smallest_normal)
    return np.asarray(np.exp2(np.frexp(magnitude)[1] - 1.0) * kind.epsilon)


def assert_rounded_once(found: Array, exact: Array, kind: FloatFormat, slack: float | Array = 0.0) -> None:
    """Each result is as near to the exact one as the type allows, and infinite where it rounds beyond the largest.

    Args:
        found: Of the type.
        exact: The same in float64.
        kind: The type.
        slack: Absolute, for what float32 adds before the rounding.
    """
    assert found.dtype.name == kind.dtype
    wide = found.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(wide), np.isnan(exact))
    step = unit(exact, kind)
    limit = kind.largest * (1 + kind.epsilon / 4 / (1 - kind.epsilon / 2))  # a tie; the even neighbour is infinity
    beyond = np.abs(exact) >= limit
    unclear = (np.abs(np.abs(exact) - limit) <= slack) & (slack > 0)
    np.testing.assert_array_equal(wide[beyond & ~unclear], np.copysign(np.inf, exact)[beyond & ~unclear])
    inside = ~beyond & ~unclear & ~np.isnan(exact)
    assert np.all(np.isfinite(wide[inside]))
    assert np.all(np.abs(wide[inside] - exact[inside]) <= (step / 2 + slack)[inside])


def gelu(x: Array) -> Array:
    return np.array([0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])


UNARY: dict[str, tuple[Callable[[Array], Array], float]] = {
    "Abs": (np.abs, 0),
    "Cos": (np.cos, 1e-6),
    "Erf": (lambda x: np.array([math.erf(value) for value in x.tolist()]), 1e-7),
    "Exp": (np.exp, 0),
    "Floor": (np.floor, 0),
    "Gelu": (gelu, 1e-13),
    "Neg": (np.negative, 0),
    "Reciprocal": (lambda x: 1 / x, 0),
    "Relu": (lambda x: np.maximum(x, 0), 0),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 1e-7),
    "Sin": (np.sin, 1e-6),
    "Sqrt": (np.sqrt, 0),
    "Tanh": (np.tanh, 1e-7),
}
"""Each with the absolute error that computing in float32 may have."""
RELATIVE = {"Exp": 2.0**-20, "Gelu": 2.0**-20, "Sigmoid": 2.0**-20}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", UNARY)
def test_every_number_of_the_type_is_rounded_once(tmp_path: Path, op: str, precision: Precision) -> None:
    x = every(precision)
    if op in ("Sin", "Cos"):
        x = x[np.abs(x.astype(np.float64)) < 1e4]  # phases; beyond it a neighbour is a turn away
    function, slack = UNARY[op]
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
        wiggle = slack + RELATIVE.get(op, 0) * np.abs(np.where(np.isfinite(exact), exact, 0))
    assert_rounded_once(run(tmp_path, op, x), exact, FORMATS[precision], wiggle)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Sub": np.subtract,
}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", BINARY)
def test_pairs_are_rounded_once(tmp_path: Path, op: str, precision: Precision) -> None:
    numbers, rng = every(precision), np.random.default_rng(0)
    x, y = rng.choice(numbers, 100_000), rng.choice(numbers, 100_000)
    with np.errstate(all="ignore"):
        exact = BINARY[op](x.astype(np.float64), y.astype(np.float64))
    assert_rounded_once(run(tmp_path, op, x, y), exact, FORMATS[precision])


SHAPED: dict[str, tuple[Callable[..., Array], list[tuple[int, ...]], dict[str, Any]]] = {
    "MatMul": (np.matmul, [(3, 2, 8, 300), (2, 300, 16)], {}),
    "Gemm": (
        lambda a, b, c: 0.5 * a @ b.T + 2 * c,
        [(8, 300), (16, 300), (16,)],
        {"alpha": 0.5, "beta": 2.0, "transB": 1},
    ),
    "Softmax": (lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), [(4, 5, 300)], {"axis": -1}),
    "ReduceSum": (lambda x: x.sum(keepdims=True), [(30, 300)], {}),
    "ReduceMean": (lambda x: x.mean(keepdims=True), [(30, 300)], {}),
    "LayerNormalization": (
        lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * w + b,
        [(4, 5, 300), (300,), (300,)],
        {"epsilon": 1e-6},
    ),
}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", SHAPED)
def test_sums_are_kept_in_fp32_and_rounded_once(tmp_path: Path, op: str, precision: Precision) -> None:
    function, shapes, attributes = SHAPED[op]
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(shape).astype(DTYPE[precision]) for shape in shapes]
    exact = function(*(array.astype(np.float64) for array in inputs))
    slack = SLACK * float(np.abs(exact).max())
    assert_rounded_once(run(tmp_path, op, *inputs, **attributes), exact, FORMATS[precision], slack)


@pytest.mark.parametrize("op", ["Softmax", "LayerNormalization"])
def test_computing_in_the_type_itself_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    monkeypatch.setattr(oracle_module, "widen", lambda array: array)
    with pytest.raises(AssertionError):
        test_sums_are_kept_in_fp32_and_rounded_once(tmp_path, op, "fp16")


def test_summing_in_the_type_itself_would_be_noticed() -> None:
    x = np.random.default_rng(1).standard_normal((8, 300)).astype(np.float16)
    exact = x.sum(axis=1, dtype=np.float64)
    assert_rounded_once(x.sum(axis=1, dtype=np.float32).astype(np.float16), exact, FORMATS["fp16"], 1e-5)
    with pytest.raises(AssertionError):
        assert_rounded_once(np.add.accumulate(x, axis=1)[:, -1], exact, FORMATS["fp16"], 1e-5)


@pytest.mark.parametrize("broken", ["cut off", "clipped", "flushed"])
def test_other_roundings_would_be_noticed(broken: str) -> None:
    exact = np.array([1 + 0.9 * 2**-10, 7e4, 2.0**-24])
    with np.errstate(over="ignore"):
        right = exact.astype(np.float16)
    assert_rounded_once(right, exact, FORMATS["fp16"])
    wrong = right.copy()
    index, value = {"cut off": (0, 1.0), "clipped": (1, 65504.0), "flushed": (2, 0.0)}[broken]
    wrong[index] = value
    with pytest.raises(AssertionError):
        assert_rounded_once(wrong, exact, FORMATS["fp16"])


def test_erf_is_maths_erf() -> None:
    x = np.concatenate([np.linspace(-7, 7, 100_003), np.logspace(-300, 1, 1000), [0.0, -0.0, np.inf, -np.inf]])
    assert np.abs(erf(x) - [math.erf(value) for value in x.tolist()]).max() <= 1e-13
    assert np.isnan(erf(np.array([np.nan])))[0]


H = np.float16
OVERFLOWS: dict[str, tuple[str, list[Array], list[float]]] = {
    "Mul": ("Mul", [np.array([300, 200], H), np.array([300, 200], H)], [np.inf, 40000]),
    "Add": ("Add", [np.array([-4e4, 3e4], H), np.array([-4e4, 3e4], H)], [-np.inf, 6e4]),
    "MatMul": ("MatMul", [np.array([[200, 200], [100, 100]], H), np.array([[200], [200]], H)], [np.inf, 4e4]),
    "Gemm": ("Gemm", [np.array([[200, 200], [100, 100]], H), np.array([[200], [200]], H)], [np.inf, 4e4]),
    "ReduceSum": ("ReduceSum", [np.array([[4e4, 4e4], [3e4, 3e4]], H), np.array([1])], [np.inf, 6e4]),
    "ReduceMean": ("ReduceMean", [np.array([[6e4, 6e4], [3e4, 3e4]], H), np.array([1])], [6e4, 3e4]),
    "Pow": ("Pow", [np.array([300, -200], H), np.array(2, H)], [np.inf, 4e4]),
    "Exp": ("Exp", [np.array([12, 0], H)], [np.inf, 1]),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_overflow_is_infinite_exactly_there(tmp_path: Path, name: str) -> None:
    """A mean does not overflow where its sum would: the sum is fp32."""
    op, inputs, expected = OVERFLOWS[name]
    found = run(tmp_path, op, *inputs)
    np.testing.assert_array_equal(found.reshape(-1), np.array(expected, H))


@pytest.mark.parametrize(
    ("precision", "beyond"), [("fp16", 65520.0), ("bf16", float.fromhex("0x1.ffp127"))], ids=["fp16", "bf16"]
)
def test_a_cast_overflows_from_half_a_unit_on(tmp_path: Path, precision: Precision, beyond: float) -> None:
    x = np.array([7e4, beyond, np.nextafter(np.float32(beyond), np.float32(0)), -beyond, 1], np.float32)
    largest = FORMATS[precision].largest
    found = run(tmp_path, "Cast", x, elem=ELEM[precision], to=ELEM[precision]).astype(np.float64)
    assert found[1:].tolist() == [np.inf, largest, -np.inf, 1]
    assert (found[0] == np.inf) == (precision == "fp16")


@pytest.mark.parametrize("precision", LOW)
def test_subnormals_are_kept(tmp_path: Path, precision: Precision) -> None:
    kind = FORMATS[precision]
    smallest = kind.smallest_normal * kind.epsilon
    x = np.array([kind.smallest_normal, 3 * smallest], DTYPE[precision])
    found = run(tmp_path, "Mul", x, np.array([kind.epsilon, 1], DTYPE[precision])).astype(np.float64)
    assert found.tolist() == [smallest, 3 * smallest]


def normalise(folder: Path, x: Array) -> tuple[Path, dict[str, Array]]:
    """Layer normalisation spelled out, as the published decoder's LayerNorm2d is: fp32 in and out, fp16 within."""
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", ["x"], "low", {"to": ELEM["fp16"]}),
        ("ReduceMean", ["low", "axes"], "mean", {}),
        ("Sub", ["low", "mean"], "centred", {}),
        ("Mul", ["centred", "centred"], "square", {}),
        ("ReduceMean", ["square", "axes"], "variance", {}),
        ("Sqrt", ["variance"], "deviation", {}),
        ("Div", ["centred", "deviation"], "normal", {}),
        ("Cast", ["normal"], "y", {"to": TensorProto.FLOAT}),
    ]
    nodes = [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in steps]
    constants = {"axes": np.array([-1])}
    path = write(folder / "norm.onnx", nodes, {"x": x}, {"y": TensorProto.FLOAT, "square": ELEM["fp16"]}, constants)
    return path, {"x": x}


def test_a_variance_that_overflows_is_silent_zero_and_onnx_runtime_hides_it(tmp_path: Path) -> None:
    """Why the oracle exists: dividing by an infinite deviation gives 0, which nothing downstream notices."""
    x = np.array([[1000, -1000, 500, -500], [1, -1, 0.5, -0.5]], np.float32)
    expected = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
    path, feeds = normalise(tmp_path, x)
    found = OracleRunner(path).run(feeds)
    assert np.isinf(found["square"]).tolist() == [[True] * 4, [False] * 4]
    assert found["y"][0].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(found["y"][1], expected[1], rtol=2e-3)
    hidden = OrtRunner(path).run(feeds)["y"]
    np.testing.assert_allclose(hidden, expected, rtol=2e-3)
    ones, zeros = np.ones(4, H), np.zeros(4, H)
    whole = run(tmp_path, "LayerNormalization", x.astype(H), ones, zeros)
    np.testing.assert_allclose(whole, expected, rtol=2e-3)
