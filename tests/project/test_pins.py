"""What users see stays as it is recorded: help texts, and the messages and exit codes of errors that need no export.

`python scripts/pins.py --check` compares everything else too; without `--check` it records anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pins
import pytest

RECORDED = json.loads(pins.text_of("errors"))
QUICK = [line for line, heavy in pins.ERRORS if not heavy]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pins")
    pins.junk(folder)
    return folder


@pytest.fixture
def inside(folder: Path) -> Iterator[Path]:
    """That folder, as the current one."""
    with pins.working_in(folder):
        yield folder


def test_help_is_as_recorded(inside: Path) -> None:
    assert pins.pin_help() == pins.text_of("help")


@pytest.mark.parametrize("line", QUICK)
def test_an_error_is_as_recorded(inside: Path, line: str) -> None:
    assert pins.outcome_of(line, inside) == RECORDED[line]


def test_every_error_is_recorded_and_is_one() -> None:
    assert [*RECORDED] == [line for line, _ in pins.ERRORS]
    assert {found["code"] for found in RECORDED.values()} == {2, 3, 4, 5, 6, 7}
