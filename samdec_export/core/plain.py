"""Values as JSON has them, and dataclasses read back from them."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["from_plain", "to_plain"]

T = TypeVar("T")

_hints = cache(get_type_hints)


def to_plain(value: Any) -> Any:
    """Return a value that JSON has.

    Dataclasses become objects, infinite numbers None, NumPy's scalars Python's, and all else its text.
    """
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "item"):
        value = value.item()
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case _:
            return value if isinstance(value, str | int | None) else str(value)


def from_plain(kind: type[T], data: Any) -> T:
    """Return the dataclass that `to_plain` wrote, every field checked. KeyError, TypeError, ValueError: it is none."""
    found: T = _read(kind, data)
    return found


def _read(hint: Any, data: Any) -> Any:
    if hint is Any:
        return data
    if is_dataclass(hint):
        return _read_fields(hint, data)
    if get_origin(hint) is not None:
        return _read_generic(hint, data)
    if hint is float:
        return float(_checked(data, type(data) in (int, float), hint))
    return _checked(data, type(data) is hint, hint)


def _read_generic(hint: Any, data: Any) -> Any:
    """Read what a Literal, tuple[X, ...], Mapping, or a union of None and one other kind allows."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _checked(data, data in inner, hint)
    if origin is tuple:
        return tuple(_read(inner[0], item) for item in _checked(data, isinstance(data, list), hint))
    if origin is Mapping:
        whole = _checked(data, isinstance(data, dict), hint)
        return {_read(inner[0], key): _read(inner[1], item) for key, item in whole.items()}
    if data is None and types.NoneType in inner:
        return None
    (kind,) = (kind for kind in inner if kind is not types.NoneType)
    return _read(kind, data)


def _read_fields(kind: Any, data: Any) -> Any:
    hints = _hints(kind)
    if unknown := _checked(data, isinstance(data, dict), kind).keys() - hints.keys():
        raise ValueError(f"{kind.__name__} has no {min(unknown)}")
    needed = [field.name for field in fields(kind) if field.default is field.default_factory is MISSING]
    if missing := needed - data.keys():
        raise KeyError(f"{kind.__name__} without {min(missing)}")
    return kind(**{name: _read(hints[name], value) for name, value in data.items()})


def _checked(data: Any, holds: bool, hint: Any) -> Any:
    if not holds:
        raise TypeError(f"{str(data)[:40]!r} is no {getattr(hint, '__name__', hint)}")
    return data
