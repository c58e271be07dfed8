"""Lines that several groups of commands print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samdec_export.api import GraphSummary

__all__ = ["kept_lines", "shares", "tensor_lines"]


def tensor_lines(graph: GraphSummary) -> Iterator[str]:
    """Yield a line for each input and output of a graph."""
    for kind, tensors in (("in ", graph.inputs), ("out", graph.outputs)):
        for tensor in tensors:
            shape = ", ".join(str(axis) for axis in tensor.shape)
            yield f"  {kind}  {tensor.name:<26} {tensor.dtype:<8} ({shape})"


def kept_lines(kept: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each reason for which nodes stay in fp32."""
    for reason in dict.fromkeys(kept.values()):
        yield f"  fp32: {[*kept.values()].count(reason):>3} nodes, {reason}"


def shares(found: Mapping[str, float]) -> str:
    """Return the shares of matmuls by type."""
    return ", ".join(f"{share:.2%} {dtype}" for dtype, share in found.items())
