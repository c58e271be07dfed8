"""What the commands share: options that several take, and how results and errors are printed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from samdec_export.errors import GraphError, UsageError
from samdec_export.precision import LowPrecision

__all__ = ["AsJson", "Checkpoint", "chosen_precision", "complain", "interrupt", "lose_output", "print_json"]

LONGEST_LINE = 3000

Checkpoint = Annotated[
    Path | None,
    typer.Option("--ckpt", help="Checkpoint: .pt, .pth, .safetensors or a Hugging Face folder.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def chosen_precision(fp16: bool, bf16: bool) -> LowPrecision:
    """The one of two flags that is set.

    Raises:
        UsageError: None is, or both are.
    """
    if fp16 == bf16:
        raise UsageError("Name one precision to convert to.", "Add --fp16 or --bf16.")
    return "fp16" if fp16 else "bf16"


def complain(message: str) -> None:
    """One line, whatever names from a damaged file are in it."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    shortened = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
    print(f"samdec-export: {shortened}", file=sys.stderr)


def lose_output(error: OSError) -> int:
    """Standard output is gone: say so, and keep Python from trying again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    complain(f"Cannot write the result: {error.strerror}.")
    return GraphError.exit_code


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Whatever the signal, so that scratch folders are removed."""
    raise KeyboardInterrupt


def print_json(value: object) -> None:
    """A result on standard output."""
    print(json.dumps(value, indent=2))
