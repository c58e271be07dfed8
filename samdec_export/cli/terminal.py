"""How results look on a terminal or in a file: what every display shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console

from samdec_export import api

__all__ = ["console", "kept_lines", "printable", "shares", "size", "tensor_lines"]

PLAIN_WIDTH = 120
"""Columns of output that does not go to a terminal."""


def console() -> Console:
    """Return a console on stdout that folds no lines and reads no markup in names."""
    screen = Console(highlight=False, soft_wrap=True, markup=False)
    if not screen.is_terminal:
        screen.width = max(screen.width, PLAIN_WIDTH)
    return screen


def printable(text: str) -> str:
    """Return one line, whatever names from a foreign file are in it: control characters and line ends become `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def size(count: int) -> str:
    """Return bytes as MB or kB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def tensor_lines(graph: api.GraphSummary) -> Iterator[str]:
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
