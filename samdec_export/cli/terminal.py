"""How results look on a terminal or in a file: what every display shares."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console", "printable", "size"]

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
