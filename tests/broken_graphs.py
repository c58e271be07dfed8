"""Ways to make an ONNX graph wrong on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Damage = Callable[[onnx.ModelProto], None]


def perturb_a_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: math.prod(t.dims))
    array = numpy_helper.to_array(tensor).copy()
    array *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def rewire(model: onnx.ModelProto, output: str, op: str, extra: list[str], **attributes: int) -> None:
    """Put one more node before an output."""
    inner = f"{output}_before_{op}"
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = inner
        for index, name in enumerate(node.input):
            if name == output:
                node.input[index] = inner
    model.graph.node.append(helper.make_node(op, [inner, *extra], [output], **attributes))  # type: ignore[arg-type]  # its stub knows no attributes


def constant(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> list[str]:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return [name]


def make_nan(model: onnx.ModelProto) -> None:
    rewire(model, "masks", "Div", constant(model, "zero", np.zeros((), np.float32)))
    rewire(model, "masks", "Mul", constant(model, "zero_again", np.zeros((), np.float32)))


def swap_masks(model: onnx.ModelProto) -> None:
    rewire(model, "masks", "Gather", constant(model, "order", np.array([1, 0, 2])), axis=1)


def flip_signs_near_zero(model: onnx.ModelProto) -> None:
    rewire(model, "masks", "Add", constant(model, "shift", np.array(1e-3, np.float32)))


def drop_an_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def swap_the_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.reverse()


def lose_precision(model: onnx.ModelProto) -> None:
    rewire(model, "masks", "Cast", [], to=TensorProto.FLOAT16)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def crop(model: onnx.ModelProto) -> None:
    extra = constant(model, "from", np.array([0])) + constant(model, "to", np.array([31]))
    rewire(model, "masks", "Slice", extra + constant(model, "axis", np.array([3])))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 31
