"""An eager graph becomes ONNX, through torch.export."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from samdec_export.core.drawing import Case
from samdec_export.core.errors import GraphError
from samdec_export.core.feeds import example_sizes, make_feeds
from samdec_export.core.signature import Axis, Dim, Scaled, Signature, TensorSpec

__all__ = ["export_onnx"]

TORCHLIB_OPSET = 18
"""The oldest opset that torch's exporter writes itself."""


def export_onnx(graph: nn.Module, signature: Signature, path: Path, opset: int) -> None:
    """Trace `graph` and write it as one ONNX file.

    The file holds nothing that differs between two runs: stack traces and source paths are left out.

    Args:
        graph: A module whose forward takes and returns what `signature` lists.
        signature: Names, dtypes and axes.
        path: Where to write.
        opset: The wanted opset; below 18, opset 18 is written and is to be lowered by a pass.

    Raises:
        GraphError: The module cannot be traced.
    """
    feeds = make_feeds(signature, Case(sizes=example_sizes(signature)))
    args = tuple(torch.from_numpy(feeds[spec.name]) for spec in signature.inputs)
    try:
        with _quiet(), _uncollected(), torch.no_grad():
            program = torch.export.export(graph, args, dynamic_shapes=_dynamic_shapes(signature), strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                opset_version=max(opset, TORCHLIB_OPSET),
                verbose=False,
                optimize=False,  # simplifying is a pass of its own, so that its effect can be shown
            )
    except Exception as error:  # torch.export and the exporter raise dozens of types of their own
        raise GraphError(
            f"torch.export failed: {str(error).strip().splitlines()[0]}",
            "Check the installed torch against the constraints file; this is a bug if they agree.",
        ) from error
    if exported is None:
        raise GraphError("torch.onnx.export returned no program.", "Check the installed torch and onnxscript.")
    model = exported.model_proto
    _strip(model)
    _name_axes(model, signature)
    onnx.save(model, path)


def _dynamic_shapes(signature: Signature) -> tuple[dict[int, object], ...]:
    dims = {dim.name: torch.export.Dim(dim.name) for dim in signature.dims}

    def symbol(axis: Axis) -> object:
        match axis:
            case Dim(name=name):
                return dims[name]
            case Scaled(dim=dim, factor=factor):
                return factor * dims[dim.name]
            case _:
                return torch.export.Dim.STATIC

    return tuple({index: symbol(axis) for index, axis in enumerate(spec.shape)} for spec in signature.inputs)


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about its own run."""
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.graph.name = "samdec_export"
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")


def _name_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Give inputs and outputs the axes of the signature; the exporter makes up names for sizes read from values."""
    specs: dict[str, TensorSpec] = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for axis, label in zip(value.type.tensor_type.shape.dim, specs[value.name].labels, strict=True):
            if isinstance(label, str):
                axis.dim_param = label
            else:
                axis.dim_value = label


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from writing to the terminal: what goes wrong is raised, what it logs are notes to its authors."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage, a quarter of the time: what a trace makes, it keeps to its end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
