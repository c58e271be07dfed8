"""Is the graph what its Signature says, and free of what engines choke on?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from samdec_export.core.errors import GraphError
from samdec_export.core.signature import Signature
from samdec_export.export.onnx_file import differences, load

__all__ = ["MAX_RANK", "lint"]

FORBIDDEN = {
    "OneHot": "TensorRT refuses it (repeat_interleave makes it)",
    "Tile": "TensorRT refuses it here (repeat_interleave makes it)",
    "Loop": "data-dependent control flow",
    "If": "data-dependent control flow",
    "NonZero": "a data-dependent shape",
}

MAX_RANK = 8
"""TensorRT's limit."""


def lint(path: Path, signature: Signature) -> None:
    """Check an ONNX file against its signature and the rules of exported graphs.

    Raises:
        GraphError: It breaks some; the message lists each.
    """
    model = load(path)
    findings = [finding for rule in RULES for finding in rule(model, signature)]
    if findings:
        raise GraphError(
            f"{path.name} breaks {len(findings)} rules: {'; '.join(findings)}.", "This is a bug: report it."
        )


def _is_valid(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"onnx.checker: {str(error).strip().splitlines()[0]}"


def _has_no_forbidden_op(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type in FORBIDDEN:
            yield f"{node.op_type} {node.name}: {FORBIDDEN[node.op_type]}"


def _has_no_custom_domain(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node}
    if custom := domains - {"", "ai.onnx"}:
        yield f"custom domains {sorted(custom)}"
    if model.functions:
        yield f"local functions {sorted(function.name for function in model.functions)}"


def _has_no_high_rank(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    for value in _inferred(model).graph.value_info:
        if (rank := len(value.type.tensor_type.shape.dim)) > MAX_RANK:
            yield f"{value.name} has rank {rank}, above {MAX_RANK}"


def _has_no_float64(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    for value in _inferred(model).graph.value_info:
        if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            yield f"{value.name} is float64"
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            yield f"initialiser {tensor.name} is float64"


def _uses_every_initialiser(model: onnx.ModelProto, signature: Signature) -> Iterator[str]:
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        if tensor.name not in used:
            yield f"initialiser {tensor.name} is unused"


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


RULES: tuple[Callable[[onnx.ModelProto, Signature], Iterator[str]], ...] = (
    _is_valid,
    differences,
    _has_no_forbidden_op,
    _has_no_custom_domain,
    _has_no_high_rank,
    _has_no_float64,
    _uses_every_initialiser,
)
