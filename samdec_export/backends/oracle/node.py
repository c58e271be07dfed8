"""What the oracle's operators are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import ml_dtypes  # noqa: F401  # gives NumPy its bfloat16
import numpy as np

from samdec_export.core.dtypes import FORMATS
from samdec_export.core.runner import Array

__all__ = ["NARROW", "Inputs", "Node", "widen"]

Inputs: TypeAlias = Sequence[Array]
"""An operator's inputs in order; an optional one that is left out is an array without elements."""

NARROW: Final = frozenset(np.dtype(row.dtype) for row in FORMATS.values() if row.bytes < FORMATS["fp32"].bytes)
"""The types that are computed in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of an ONNX graph. Among its attributes, types are NumPy's, tensors are arrays and text is `str`."""

    op: str
    name: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str

    def __str__(self) -> str:
        """Return a name such as `MatMul node_12`."""
        return f"{self.op} {self.name or self.output}"


def widen(array: Array) -> Array:
    """Return the same values, a narrow type's as float32."""
    return array.astype(np.float32) if array.dtype in NARROW else array
