"""A convolution written as a product is the convolution, as ONNX Runtime computes both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Export
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_graphs import write

from samdec_export.backends.ort import OrtRunner
from samdec_export.core.drawing import Case
from samdec_export.core.errors import GraphError
from samdec_export.core.feeds import make_feeds
from samdec_export.precision.convolution_products import convolutions_to_products

Array = NDArray[Any]

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


X = normal(2, 3, 12, 6)
BIAS = normal(5)

PRODUCTS: dict[str, tuple[str, Array, Array | None, dict[str, Any]]] = {
    "one pixel": ("Conv", normal(5, 3, 1, 1), BIAS, {}),
    "windows": ("Conv", normal(5, 3, 2, 2), BIAS, {"strides": [2, 2], "kernel_shape": [2, 2]}),
    "windows of three": ("Conv", normal(5, 3, 3, 3), None, {"strides": [3, 3], "pads": [0, 0, 0, 0]}),
    "transposed pixel": ("ConvTranspose", normal(3, 5, 1, 1), BIAS, {"strides": [1, 1]}),
    "transposed": ("ConvTranspose", normal(3, 5, 2, 2), BIAS, {"strides": [2, 2], "dilations": [1, 1]}),
    "transposed by three": ("ConvTranspose", normal(3, 5, 3, 3), None, {"strides": [3, 3], "group": 1}),
}

OTHERS: dict[str, tuple[str, Array, Array | None, dict[str, Any]]] = {
    "overlaps": ("Conv", normal(5, 3, 2, 2), BIAS, {}),
    "gaps": ("Conv", normal(5, 3, 1, 1), BIAS, {"strides": [2, 2]}),
    "padding": ("Conv", normal(5, 3, 2, 2), BIAS, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "automatic padding": ("Conv", normal(5, 3, 2, 2), BIAS, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "dilation": ("Conv", normal(5, 3, 2, 2), BIAS, {"strides": [2, 2], "dilations": [2, 2]}),
    "groups": ("Conv", normal(3, 1, 2, 2), None, {"strides": [2, 2], "group": 3}),
    "oblong": ("Conv", normal(5, 3, 2, 1), BIAS, {"strides": [2, 1]}),
    "cut": ("ConvTranspose", normal(3, 5, 2, 2), BIAS, {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
    "larger": ("ConvTranspose", normal(3, 5, 2, 2), BIAS, {"strides": [2, 2], "output_padding": [1, 1]}),
}


def one_convolution(path: Path, op: str, weight: Array, bias: Array | None, attributes: dict[str, Any]) -> Path:
    weights = {"w": weight} if bias is None else {"w": weight, "b": bias}
    node = helper.make_node(op, ["x", *weights], ["y"], name="conv", **attributes)
    return write(path, [node], {"x": X}, {"y": TensorProto.FLOAT}, weights)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_product_is_the_convolution(tmp_path: Path, name: str) -> None:
    path = one_convolution(tmp_path / "conv.onnx", *PRODUCTS[name])
    convolutions_to_products(path, tmp_path / "product.onnx")
    model = onnx.load(tmp_path / "product.onnx")
    assert [node.op_type for node in model.graph.node if node.name == "conv"] == ["MatMul"]
    assert not {node.op_type for node in model.graph.node} & {"Conv", "ConvTranspose"}
    assert {tensor.name for tensor in model.graph.initializer} <= {name for n in model.graph.node for name in n.input}
    expected, found = (OrtRunner(file).run({"x": X})["y"] for file in (path, tmp_path / "product.onnx"))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6)  # sums of up to 27 products of size 1


@pytest.mark.parametrize("name", OTHERS)
def test_another_convolution_is_refused(tmp_path: Path, name: str) -> None:
    path = one_convolution(tmp_path / "conv.onnx", *OTHERS[name])
    with pytest.raises(GraphError, match=r"conv cannot be written as a matrix product"):
        convolutions_to_products(path, tmp_path / "product.onnx")
    assert not (tmp_path / "product.onnx").exists()


def test_a_weight_that_is_computed_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["w"], ["v"]), helper.make_node("Conv", ["x", "v"], ["y"], name="conv")]
    path = write(tmp_path / "conv.onnx", nodes, {"x": X}, {"y": TensorProto.FLOAT}, {"w": normal(5, 3, 1, 1)})
    with pytest.raises(GraphError, match="its weight is not a constant"):
        convolutions_to_products(path, tmp_path / "product.onnx")


def test_a_whole_graph_at_other_sizes(export: Export, tmp_path: Path) -> None:
    options = {"graph": "prompts", "mask_input": True, "dynamic_grid": True, "arrangement": "reference"}
    artifact = export(opset=20, **options).artifact
    convolutions_to_products(artifact.path, tmp_path / "product.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "product.onnx"), full_check=True)
    for sizes in ({"images": 2, "prompts": 3, "points": 2, "height": 3, "width": 8}, {"height": 2, "width": 5}):
        dims = {dim.name: dim.opt for dim in artifact.record.signature.dims}
        feeds = make_feeds(artifact.record.signature, Case(sizes=dims | sizes))
        expected, found = (OrtRunner(file).run(feeds) for file in (artifact.path, tmp_path / "product.onnx"))
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=5e-6 * max(1, np.ptp(array)))
