"""The table of backends: what is timed and what is judged, in which precisions, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from conftest import Typed

from samdec_export.backends.candidates import BACKENDS, Backend, BackendName, Candidate, open_runners
from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.bench.measure import Workload
from samdec_export.bench.side_by_side import BenchEntry, bench_entries
from samdec_export.core.dtypes import PRECISIONS
from samdec_export.core.errors import UsageError
from samdec_export.core.options import BENCH_RUNNERS, Provider
from samdec_export.export.onnx_file import open_artifact

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def faults(table: Mapping[BackendName, Backend]) -> list[str]:
    """What is wrong with a table of backends."""
    timed = [name for name, row in table.items() if row.time]
    found = [f"{name} takes times and is no BenchRunner" for name in timed if name not in BENCH_RUNNERS]
    found += [f"{name} is a BenchRunner and takes no times" for name in BENCH_RUNNERS if name not in timed]
    for name, row in table.items():
        if not (row.judge or row.time):
            found.append(f"{name} does nothing")
        if bool(row.refusal) != ({*row.precisions} != {*PRECISIONS}):
            found.append(f"{name} does not say why it cannot run a precision, or says so without cause")
    return found


def test_the_table_is_sound() -> None:
    assert faults(BACKENDS) == []
    assert [name for name in BACKENDS if name in BENCH_RUNNERS] == [*BENCH_RUNNERS], "the usual one stands first"


def test_a_fault_of_the_table_is_found() -> None:
    ort = BACKENDS["ort"]
    assert faults({**BACKENDS, "ort": replace(ort, time=None)}) == ["ort is a BenchRunner and takes no times"]
    assert faults({**BACKENDS, "oracle": replace(BACKENDS["oracle"], time=ort.time)})[0].startswith(
        "oracle takes times"
    )
    assert "does not say why" in faults({**BACKENDS, "ort": replace(ort, refusal="")})[0]
    assert "without cause" in faults({**BACKENDS, "ort": replace(ort, precisions=PRECISIONS)})[0]


def test_extras_are_those_of_the_project() -> None:
    lines = [line.split(" = ")[0] for line in PROJECT.read_text().splitlines() if " = [" in line]
    assert {extra for row in BACKENDS.values() for extra in row.extras} <= {*lines}


@pytest.mark.parametrize("provider", get_args(Provider))
def test_each_provider_has_a_row(provider: Provider, typed: Typed) -> None:
    candidate = Candidate(artifact=open_artifact(typed()), provider=provider)
    assert candidate.backend is BACKENDS["ort" if provider == "cpu" else "ort-cuda"]
    assert candidate.on_gpu == (provider == "cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_who_judges_a_precision(precision: str, typed: Typed) -> None:
    found = open_runners(Candidate(artifact=open_artifact(typed(precision))))
    assert isinstance(found.own, OrtRunner) == (precision in BACKENDS["ort"].precisions)
    assert isinstance(found.oracle, OracleRunner) == (precision in BACKENDS["oracle"].precisions)
    assert [BACKENDS["ort"].refusal in note for note in found.notes] == [True] * (found.own is None)


def test_a_precision_that_cannot_be_timed_is_refused_before_a_process_starts(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(UsageError, match="is bf16: ONNX Runtime's CPU provider has no bf16 kernels") as caught:
        bench_entries([BenchEntry(path=typed("bf16"), name="x")], Workload.grid([1], [1], [1]))
    assert "@ort-cuda" in caught.value.advice


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, samdec_export.backends.candidates; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "tensorrt_rtx", "polygraphy"} & {*shown}
