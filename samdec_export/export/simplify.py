"""Fold constants and remove what does no work."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxslim
from onnxscript import optimizer

from samdec_export.core.errors import GraphError

__all__ = ["simplify"]

ADVICE = "Check the installed onnxscript and onnxslim against the constraints file."


def simplify(source: Path, target: Path) -> None:
    """Write a simplified copy of an ONNX file. Inputs, outputs and their axes stay as they are.

    onnxscript's optimiser folds what torch's exporter leaves (it knows the exporter's shape arithmetic), onnxslim
    what is left after that.

    Raises:
        GraphError: onnxslim cannot take the graph.
    """
    try:
        slim = onnxslim.slim(optimizer.optimize(onnx.load(source)))
    except Exception as error:  # both optimisers pass on whatever their parts raise
        raise GraphError(f"Simplifying failed: {error}", ADVICE) from error
    if slim is None:
        raise GraphError("onnxslim returned no model.", ADVICE)
    # the order of a set must not reach the file
    ordered = sorted(slim.graph.initializer, key=lambda tensor: tensor.name)
    del slim.graph.initializer[:]
    slim.graph.initializer.extend(ordered)
    onnx.save(slim, target)
