"""The table of packages: what is installed is found, under every name that it ships under."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from samdec_export.backends.tensorrt.api import declared_version
from samdec_export.core.packages import ENGINES, EngineName, tool_versions

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


class Distribution:
    version = "11.4.0"


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these packages be the installed ones."""

    def distributions(name: str) -> list[Distribution]:
        return [Distribution()] if name in names else []

    monkeypatch.setattr("importlib.metadata.distributions", distributions)


def test_every_engine_has_a_row_and_its_extra_installs_it() -> None:
    assert {*ENGINES} == {*get_args(EngineName)}
    lines = {line.split(" = ")[0]: line for line in PROJECT.read_text().splitlines() if " = [" in line}
    for engine in ENGINES.values():
        assert f'"{engine.packages[0]}>=' in lines[engine.extra]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_found_under_every_name(engine: EngineName, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES[engine].packages:
        install(monkeypatch, name)
        assert declared_version(engine) == "11.4.0"


def test_no_package_belongs_to_two_engines() -> None:
    names = [name for engine in ENGINES.values() for name in engine.packages]
    assert len(names) == len({*names})


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnx")
    assert tool_versions("onnx", "torch", "onnx") == {"onnx": "11.4.0"}
