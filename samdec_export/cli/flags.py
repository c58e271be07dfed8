"""Flags made of what is declared: a dataclass of choices in a command's signature becomes a flag for each of them."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

import typer
from annotated_types import Ge, Le, Lt

from samdec_export.api import CaseOptions, GraphOptions
from samdec_export.core.choices import Choice, Help, Options, choices_of
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.errors import UsageError
from samdec_export.core.options import ExportOptions, GraphName, SweepName
from samdec_export.core.spelling import as_flag, spelled

__all__ = [
    "AsJson",
    "Case",
    "Checkpoint",
    "ConvertTo",
    "Feeds",
    "Graph",
    "Model",
    "NoValidate",
    "Out",
    "Seed",
    "Sweep",
    "flag",
    "print_json",
    "takes",
]


BOUNDS: Final[dict[type, str]] = {Ge: "at least {0.ge:g}", Le: "at most {0.le:g}", Lt: "below {0.lt:g}"}
"""What a flag's help says of the bounds, which are checked where a choice is declared."""


def flag(options: type[Options], name: str, **own: Any) -> Any:
    """Return the flag of one choice; `own` is what a command says of it otherwise, such as `show_default`."""
    return _option(choices_of(options)[name], **own)


def _option(choice: Choice, **own: Any) -> Any:
    names = as_flag(choice.name)
    if choice.default is True:
        names += "/" + as_flag(choice.name, "False")
    shown = choice.help.usual or not (choice.default is False or choice.default in (None, ()))
    words = [BOUNDS[type(bound)].format(bound) for bound in choice.bounds if type(bound) in BOUNDS]
    text = spelled(choice.help.text, as_flag).removesuffix(".") + (f" ({', '.join(words)})" if words else "")
    text += f": {choice.text.form}." if choice.text and choice.text.form else "."
    return typer.Option(names, **{"help": text, "show_default": shown, **own})


def takes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each choice of the dataclasses that it takes, in their place; it gets the values."""
    hints = get_type_hints(command, include_extras=True)
    kinds: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @functools.wraps(command)
    def called(**found: Any) -> None:
        made = {name: kind(**_values(kind, found)) for name, kind in kinds.items()}
        command(**found, **made)

    parameters = [
        made
        for own in inspect.signature(command).parameters.values()
        for made in (
            _parameters(kinds[own.name]) if own.name in kinds else [_keyword(own.name, hints[own.name], own.default)]
        )
    ]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameters(options: type[Options]) -> Iterator[inspect.Parameter]:
    for choice in choices_of(options).values():
        kind, default = choice.kind, choice.default
        if choice.text:
            kind = list[str] | None if choice.text.many else str | None
            default = ",".join(map(str, default)) or None
        yield _keyword(choice.name, Annotated[kind, _option(choice)], default)
        if choice.help.former:
            hidden = typer.Option(as_flag(choice.help.former), hidden=True)
            yield _keyword(choice.help.former, Annotated[kind, hidden], default)


def _values(options: type[Options], found: dict[str, Any]) -> dict[str, Any]:
    """Take a dataclass's values out of those of the flags."""
    values = {}
    for choice in choices_of(options).values():
        value = found.pop(choice.name)
        former = found.pop(choice.help.former, value)
        value = former if value == choice.default else value
        values[choice.name] = _read(choice, value) if choice.text else value
    return values


def _read(choice: Choice, given: str | list[str] | None) -> Any:
    assert choice.text
    match given:
        case None:
            return choice.default
        case str():
            return choice.text.read(given, choice.name)
        case texts:
            return tuple(choice.text.read(text, choice.name) for text in texts)


Checkpoint = Annotated[Path | None, flag(ExportOptions, "checkpoint")]
Model = Annotated[str | None, flag(ExportOptions, "model")]
Out = Annotated[Path | None, flag(ExportOptions, "out", show_default="that of the artifact")]
Graph = Annotated[GraphName | None, flag(GraphOptions, "graph", show_default=False)]
Sweep = Annotated[SweepName, flag(CaseOptions, "sweep")]
Seed = Annotated[int, flag(CaseOptions, "seed")]
Feeds = Annotated[Path | None, flag(CaseOptions, "feeds")]
Case = Annotated[str | None, flag(CaseOptions, "case")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
NoValidate = Annotated[bool, typer.Option("--no-validate", help="Do not compare with eager PyTorch.")]


@dataclass(frozen=True, kw_only=True)
class ConvertTo:
    """A flag for each precision that a file can be converted to."""

    fp16: Annotated[bool, Help("Convert to IEEE half precision.")] = False
    bf16: Annotated[bool, Help("Convert to bfloat16.")] = False

    @property
    def asked(self) -> bool:
        """Return whether one is asked for."""
        return any(asdict(self).values())

    @property
    def precision(self) -> LowPrecision:
        """Return the one that is asked for.

        Raises:
            UsageError: None is, or several are.
        """
        asked: list[LowPrecision] = [name for name in get_args(LowPrecision) if getattr(self, name)]
        if len(asked) != 1:
            known = " or ".join(f"{{precision={name}}}" for name in get_args(LowPrecision))
            raise UsageError("Name one precision to convert to.", f"Add {known}.")
        return asked[0]


def print_json(value: object) -> None:
    """Print a result on standard output."""
    print(json.dumps(value, indent=2))
