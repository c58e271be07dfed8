"""What the commands share: options that several take, and how a result is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.errors import UsageError

__all__ = ["AsJson", "Checkpoint", "chosen_precision", "parse_counts", "print_json"]

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


def parse_counts(name: str, text: str) -> list[int]:
    """Read a comma-separated list of sizes, such as `1,8,64`.

    Raises:
        UsageError: One is not a positive whole number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--{name} {text!r} is not a list of positive whole numbers.", "Write such as 1,8,64.")
    return [int(part) for part in parts]


def print_json(value: object) -> None:
    """A result on standard output."""
    print(json.dumps(value, indent=2))
