"""What the oracle's operators are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np

from samdec_export.core.runner import Array

__all__ = ["BFLOAT16", "NARROW", "Inputs", "Node", "widen"]

Inputs: TypeAlias = Sequence[Array]
"""An operator's inputs in order; an optional one that is left out is an array without elements."""

BFLOAT16: Final[np.dtype[Any]] = np.dtype(ml_dtypes.bfloat16)
NARROW: Final = frozenset({np.dtype(np.float16), BFLOAT16})
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
        """Such as `MatMul node_12`."""
        return f"{self.op} {self.name or self.output}"


def widen(array: Array) -> Array:
    """The same values, a narrow type's as float32."""
    return array.astype(np.float32) if array.dtype in NARROW else array
