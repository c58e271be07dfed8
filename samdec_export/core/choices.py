"""What a user's choice is declared with: once, as a field of a frozen dataclass beside its stage.

`max_flips: Annotated[float | None, Ge(0), Lt(1), Help("...")] = None` is the flag with its help and bounds, the key of
a config with its schema, and the Python argument. A field without a `Help` is no choice of the user's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, Lt, MinLen

from samdec_export.core.errors import UsageError
from samdec_export.core.spelling import as_argument, spelled

__all__ = ["Choice", "Count", "Help", "Options", "Text", "Words", "check", "choices_of", "options_of"]


class Options(Protocol):
    """A frozen dataclass of choices."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Options)


@dataclass(frozen=True, slots=True)
class Text:
    """How a value is written where it is text, as on a command line.

    `read` returns the value of a text, given the choice's name for its message; `form` is what such a text looks like,
    where that needs telling; a choice that takes `many` texts makes a value of each.
    """

    read: Callable[[str, str], Any]
    form: str = ""
    many: bool = False


@dataclass(frozen=True, slots=True)
class Help:
    """What a choice means, in a sentence that its flag, its key and its schema show.

    `usual` says what None comes to; a flag and a key still take the `former` name.
    """

    text: str
    usual: str = ""
    former: str = ""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core), "description": self.described("")}

    def described(self, form: str) -> str:
        """Return the sentence for a config, with the form of a value where it needs telling, and what None comes to."""
        text = self.text.removesuffix(".") + f", as {form}." if form else self.text
        return spelled(text, as_argument) + (f" Left out: {self.usual}." if self.usual else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A declared choice: its type without annotations, bounds of its value or each of its values.

    `text` is None for what a command line reads itself.
    """

    name: str
    kind: Any
    default: Any
    help: Help
    bounds: tuple[Any, ...]
    text: Text | None

    def complaints(self, value: Any) -> Iterator[str]:
        """Yield what is wrong with a value."""
        for item in value if isinstance(value, tuple) else () if value is None else (value,):
            if isinstance(item, float) and not math.isfinite(item):
                yield f"{item} is not a finite number"
            for bound in self.bounds:
                match bound:
                    case Ge(ge=least) if not item >= least:
                        yield f"{item:g} is below {least:g}"
                    case Le(le=most) if not item <= most:
                        yield f"{item:g} is above {most:g}"
                    case Lt(lt=end) if not item < end:
                        yield f"{item:g} is not below {end:g}"
                    case _:
                        pass
        if value == () and any(isinstance(bound, MinLen) for bound in self.bounds):
            yield "is empty"


@cache
def choices_of(options: type[Options]) -> dict[str, Choice]:
    """Return what a dataclass declares, by name."""
    kinds, hints = get_type_hints(options), get_type_hints(options, include_extras=True)
    found = {}
    for item in fields(options):
        notes = [*_notes(hints[item.name])]
        if help_ := next((note for note in notes if isinstance(note, Help)), None):
            found[item.name] = Choice(
                name=item.name,
                kind=kinds[item.name],
                default=item.default,
                help=help_,
                bounds=tuple(note for note in notes if not isinstance(note, Help | Text)),
                text=next((note for note in notes if isinstance(note, Text)), None),
            )
    return found


def _notes(hint: Any) -> Iterator[Any]:
    """Yield what a type is annotated with, outside and inside of it."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
        hint = hint.__origin__
    for part in get_args(hint):
        yield from _notes(part)


def check(options: Options) -> None:
    """Raise UsageError unless every choice is within its bounds."""
    for choice in choices_of(type(options)).values():
        for complaint in choice.complaints(getattr(options, choice.name)):
            raise UsageError(f"{{{choice.name}}} {complaint}.", choice.help.text)


def _same(text: str, name: str) -> str:
    return text


Count: TypeAlias = Annotated[int, Ge(1)]
Words: TypeAlias = Annotated[tuple[str, ...], Text(_same, many=True)]


def options_of(kind: type[T], source: object, **values: Any) -> T:
    """Return the options that another object has the same choices of, with some values beside or in place of them."""
    own = {item.name: getattr(source, item.name) for item in fields(kind) if hasattr(source, item.name)}
    return kind(**(own | values))
