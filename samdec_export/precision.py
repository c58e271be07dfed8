"""The one list of precisions. Precision is a property of the graph's tensors, never of a builder's flag."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

__all__ = ["PRECISIONS", "Precision"]

Precision: TypeAlias = Literal["fp32"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
