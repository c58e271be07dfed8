"""How a choice of the user's is named: as a Python argument, as a flag, or as a config spells it.

A message is written once for every surface: `{max_flips}` in it names a choice, `{graph=prompts}` a choice and its
value, and the surface that shows the message spells them. This is the one place that knows how a flag is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["Spelling", "as_argument", "as_flag", "command_line", "spelled"]

Spelling: TypeAlias = Callable[[str, str], str]
"""Returns how a choice is written, given its name, and its value as text or ``."""

CHOICE: Final = re.compile(r"\{([a-z][a-z0-9_]*)(?:=([^{}]*))?\}")

FLAG_NAMES: Final = {"checkpoint": "ckpt", "profiles": "profile", "ranges": "range", "settings": "set"}
"""Choices whose flag is shorter than their name, or takes one of several values each time."""


def spelled(text: str, spelling: Spelling) -> str:
    """Return a text with every choice in it spelled."""
    return CHOICE.sub(lambda found: spelling(found[1], found[2] or ""), text)


def as_argument(name: str, value: str) -> str:
    """Return a choice as Python writes it: `graph`, `graph="prompts"`, `protect=False`."""
    return f"{name}={value if value in ('True', 'False') else repr(value)}" if value else name


def as_flag(name: str, value: str = "") -> str:
    """Return a choice as a flag; a precision is a flag of its own."""
    if name == "precision" and value:
        return f"--{value}"
    flag = FLAG_NAMES.get(name, name).replace("_", "-")
    match value:
        case "" | "True":
            return f"--{flag}"
        case "False":
            return as_flag(f"no_{name}")
        case _:
            return f"--{flag} {value}"


def command_line(*words: object, **choices: object) -> str:
    """Return the command with these arguments and choices, quoted for a shell; what is None is left out."""
    flags = [(as_flag(name), str(value)) for name, value in choices.items() if value is not None]
    return shlex.join(["samdec-export", *map(str, words), *(word for pair in flags for word in pair)])
