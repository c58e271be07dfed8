"""What TensorRT would refuse, or take and get wrong, found before a build and with the fix named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.artifact import Artifact
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.signature import Signature
from samdec_export.export.cost import fp32_products, usual_products
from samdec_export.export.dataflow import FLOATS, Dataflow
from samdec_export.export.lint import MAX_RANK
from samdec_export.export.onnx_file import differences, load

__all__ = ["TURING", "check_profiles", "check_turing", "lint_for_engine"]

TURING = "sm75"

SHAPE_INPUTS = {
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Tile": (1,),
    "Slice": (1, 2, 3, 4),
    "Resize": (2, 3),
    "Range": (0, 1, 2),
    "Pad": (1,),
    "TopK": (1,),
}
"""Operators whose given inputs are sizes: TensorRT calls what they follow from shape tensors."""

FP32_ATTENTION_OPSET = 23


COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})

ARITHMETIC = COMPARISONS | {
    *("Abs", "Add", "Clip", "CumSum", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceMax", "ReduceSum"),
    *("Sub", "Sum", "Where"),
}

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})

SIZES_RANK = 1
"""Sizes of tensors are int64 by the specification, and are single numbers or rows of them."""


def lint_for_engine(path: Path, signature: Signature) -> list[str]:
    """Check an ONNX file for what TensorRT is known to refuse.

    Returns:
        What it takes and pays for: a line for each finding, with the fix.

    Raises:
        GraphError: It cannot be read.
        EngineError: It would not build; the message lists why, the advice how to get one that does.
    """
    model = load(path)
    found = [finding for rule in RULES for finding in rule(model, signature)]
    if found:
        problems = "; ".join(problem for problem, _ in found)
        fixes = " ".join(dict.fromkeys(fix for _, fix in found))
        raise EngineError(f"{path} cannot become a TensorRT engine: {problems}.", fixes)
    return [f"{path}: {problem}. {fix}" for problem, fix in _computes_in_int64(model)]


def check_profiles(signature: Signature, profiles: Sequence[Profile]) -> None:
    """Raise unless every profile keeps to the graph's axes and their ranges.

    TensorRT notices neither a range that the graph was not validated over, nor a minimum of 0.

    Raises:
        UsageError: One does not; the message has the ranges.
    """
    known = {dim.name: dim for dim in signature.dims}
    for dim in (dim for profile in profiles for dim in profile):
        if dim.name not in known:
            raise UsageError(
                f"{{profiles}}: the graph has no dynamic axis {dim.name!r}.", f"Known: {', '.join(known) or 'none'}."
            )
        limit = known[dim.name]
        if not limit.min <= dim.min <= dim.max <= limit.max:
            raise UsageError(
                f"{{profiles}} {dim.name}={dim.min}:{dim.opt}:{dim.max} leaves the range {limit.min} to {limit.max} "
                "that the graph was made and validated for.",
                f"Stay within it, or export again with {{ranges}} {dim.name}={dim.min}:{dim.opt}:{dim.max}.",
            )


def check_turing(typed: Artifact, targets: Sequence[str]) -> None:
    """Raise if an engine for sm75 would have to multiply matrices in fp32.

    Raises:
        EngineError: It would; the message names the nodes and why they are in fp32.
    """
    if TURING not in targets:
        return
    if kept := fp32_products(usual_products(typed.path, typed.record.signature)):
        reasons = "; ".join(f"{node} ({typed.record.kept.get(node, 'not converted')})" for node in kept)
        raise EngineError(
            f"{typed.path} multiplies matrices in fp32, which TensorRT-RTX does not do on sm75: {reasons}.",
            "Name the fp32 file and {precision=fp16}, which converts for sm75 ({all_matmuls}), or leave sm75 out of "
            "{targets}.",
        )


def _follows_signature(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    for difference in differences(model, signature):
        yield f"by its record it is another graph: {difference}", "Export it again."


def _has_no_one_hot(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        if node.op_type in ("OneHot", "Tile"):
            yield (
                f"{node.op_type} {node.name}, which repeat_interleave becomes",
                "Export it with samdec-export onnx, whose graphs expand instead.",
            )


def _has_no_high_rank(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    for value in (*_inferred(model).value_info, *model.graph.output):
        if (rank := len(value.type.tensor_type.shape.dim)) > MAX_RANK:
            yield f"{value.name} has rank {rank}", f"TensorRT takes {MAX_RANK} axes: merge some before the reshape."


def _has_no_float_shape(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    makers = {name: node for node in model.graph.node for name in node.output if name}
    floats = {value.name for value in model.graph.input if value.type.tensor_type.elem_type in FLOATS}
    waiting = [
        name
        for node in model.graph.node
        for index, name in enumerate(node.input)
        if index in SHAPE_INPUTS.get(node.op_type, ())
    ]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in floats:
            yield (
                f"the sizes of tensors follow from {name}, which is not of whole numbers",
                "Export with {graph=prompts}: its masks are resized outside the graph.",
            )
        maker = makers.get(name)
        if maker is not None and maker.op_type not in ("Shape", "Size"):
            waiting += maker.input


def _has_no_fp32_attention(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    types = {value.name: value.type.tensor_type.elem_type for value in _inferred(model).value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "Attention" and types.get(node.output[0]) == TensorProto.FLOAT:
            yield (
                f"Attention {node.name} in fp32, of opset {FP32_ATTENTION_OPSET}",
                "Export with opset 20 or below, or convert to fp16.",
            )


def _has_no_bf16_deconvolution(model: onnx.ModelProto, signature: Signature) -> Iterator[tuple[str, str]]:
    """Yield transposed convolutions in bf16: TensorRT-RTX 1.7 parses one and then cannot infer its type."""
    flow = Dataflow(model)
    for node in flow.nodes.values():
        if node.op_type == "ConvTranspose" and flow.types.get(node.output[0]) == TensorProto.BFLOAT16:
            yield (
                f"ConvTranspose {node.name} in bf16",
                "Convert the fp32 file to bf16 with samdec-export, which writes convolutions as products.",
            )


def _computes_in_int64(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Yield arithmetic on int64 that grows with the prompts: twice the memory of int32, and slow on a GPU.

    Comparing an input as it comes, which is what the graphs do with labels, is one pass over a small tensor.
    """
    flow = Dataflow(model)
    values = (*_inferred(model).value_info, *model.graph.input)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    for node in flow.nodes.values():
        if node.op_type not in ARITHMETIC:
            continue
        for name in node.input:
            wide = flow.types.get(name) == TensorProto.INT64 and ranks.get(name, 0) > SIZES_RANK
            if wide and not (node.op_type in COMPARISONS and _is_an_input(flow, name)):
                yield (
                    f"{node.op_type} {node.name} computes in int64 with {name}, for every token",
                    "Cast it to int32 first, or compare the labels and compute with floats, as samdec-export does.",
                )


def _is_an_input(flow: Dataflow, name: str) -> bool:
    """Return whether it is an input of the graph, in this or another shape."""
    while name in flow.makers and flow.nodes[flow.makers[name]].op_type in VIEWS:
        name = flow.nodes[flow.makers[name]].input[0]
    return name not in flow.makers


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


RULES: tuple[Callable[[onnx.ModelProto, Signature], Iterator[tuple[str, str]]], ...] = (
    _follows_signature,
    _has_no_one_hot,
    _has_no_high_rank,
    _has_no_float_shape,
    _has_no_fp32_attention,
    _has_no_bf16_deconvolution,
)
