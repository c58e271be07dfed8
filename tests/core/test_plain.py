"""Dataclasses as JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from samdec_export.core.plain import from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    value: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    right: bool
    parts: tuple[Inner, ...]
    found: Mapping[str, Inner] = field(default_factory=dict)
    one: Inner | None = None
    anything: Mapping[str, Any] = field(default_factory=dict)


WHOLE = Outer(
    name="n",
    count=2,
    right=True,
    parts=(Inner("a", 0.1), Inner("b")),
    found={"x": Inner("b", 1e-300)},
    one=Inner("a", 3.0),
    anything={"deep": [1, {"er": None}]},
)


def test_what_is_written_is_read_back() -> None:
    assert from_plain(Outer, json.loads(json.dumps(to_plain(WHOLE)))) == WHOLE
    assert from_plain(Outer, {"name": "n", "count": 1, "right": False, "parts": []}) == Outer("n", 1, False, ())
    assert from_plain(Inner, {"kind": "a", "value": 1}) == Inner("a", 1.0), "JSON has one kind of number"


def test_plain_values_are_those_of_json() -> None:
    values = [
        math.inf,
        -math.inf,
        math.nan,
        np.float32(0.5),
        np.int64(3),
        np.bool_(True),
        Path("x"),
        (1, [2.5]),
        {3: 4},
    ]
    found = to_plain(values)
    assert found == [None, None, None, 0.5, 3, True, "x", [1, [2.5]], {"3": 4}]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    "damage",
    [
        {"name": None},
        {"name": 3},
        {"count": 1.5},
        {"count": True},
        {"right": 1},
        {"right": "yes"},
        {"parts": {}},
        {"parts": [{"kind": "c"}]},
        {"parts": [{}]},
        {"parts": [{"kind": "a", "value": "1"}]},
        {"found": []},
        {"found": {"x": None}},
        {"one": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_plain(Outer, {**to_plain(WHOLE), **damage})
    nothing: tuple[Any, ...] = (None, [], "text", 3)
    for broken in nothing:
        with pytest.raises(TypeError):
            from_plain(Outer, broken)
