"""Fold constants and remove what does no work."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxslim

from samdec_export.errors import GraphError

__all__ = ["simplify"]


def simplify(source: Path, target: Path) -> None:
    """Write a simplified copy of an ONNX file. Inputs, outputs and their axes stay as they are.

    Raises:
        GraphError: onnxslim cannot take the graph.
    """
    model = onnx.load(source)
    try:
        slim = onnxslim.slim(model)
    except Exception as error:  # onnxslim passes on whatever its parts raise
        raise GraphError(f"onnxslim failed: {error}", "Check the installed onnxslim against the constraints file.") from error
    if slim is None:
        raise GraphError("onnxslim returned no model.", "Check the installed onnxslim against the constraints file.")
    _sort_initialisers(slim)
    onnx.save(slim, target)


def _sort_initialisers(model: onnx.ModelProto) -> None:
    """Order by name: the order of a set must not reach the file."""
    ordered = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(ordered)
