"""What `validate` and `bench` make of an engine: what is refused before it is loaded, and who is compared with whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import call, is_one_clear_line
from conftest import Typed
from fake_tensorrt import BATCH
from test_engines import SPOILED

from samdec_export import api
from samdec_export.backends import eager, machine
from samdec_export.backends.candidates import Candidate, open_candidate
from samdec_export.backends.machine import Gpu
from samdec_export.backends.ort import OrtRunner, installed_providers
from samdec_export.backends.tensorrt import load as trt_load
from samdec_export.backends.tensorrt import polygraphy as trt_polygraphy
from samdec_export.backends.tensorrt.engine_file import EngineFile
from samdec_export.backends.tensorrt.options import BuildOptions, parse_profile
from samdec_export.bench import side_by_side as bench
from samdec_export.bench.side_by_side import case_for, parse_entry
from samdec_export.core.errors import UsageError
from samdec_export.core.runner import Feeds, Outputs
from samdec_export.export.onnx_file import open_artifact
from samdec_export.parity.cases import select_cases

ADA = Gpu(name="an Ada card", target="sm89")
PROFILES = (parse_profile("batch=1:1:1 points=2:2:2"), parse_profile("batch=2:2:3 points=1:2:4"))
RTX = BuildOptions(engine="rtx", targets=("sm89",), profiles=PROFILES)


@pytest.fixture(scope="module")
def built(typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    """An engine beside its ONNX file."""
    folder = tmp_path_factory.mktemp("built")
    return api.build_engine(Path(shutil.copy(typed("fp16"), folder)), RTX).engine


@pytest.fixture
def engine(built: EngineFile, tmp_path: Path) -> Path:
    """A copy of all three files, to spoil."""
    for path in built.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / built.path.name


# What is refused before TensorRT, torch or a GPU is touched

POISONED = """
import json, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

class Poison(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name in ("tensorrt_rtx", "polygraphy", "torch") else None

    def create_module(self, spec):
        raise AssertionError(f"{spec.name} was touched")

    def exec_module(self, module):
        raise AssertionError

sys.meta_path.insert(0, Poison())
from samdec_export.backends import machine
from samdec_export.cli import app as cli

gpu, declared, *words = json.loads(sys.argv[1])

def first_gpu():
    assert gpu != "poisoned", "the driver was touched"
    return gpu and machine.Gpu(name="a card", target=gpu)

machine.first_gpu = first_gpu
if declared is not None:
    machine.declared_version = lambda engine: declared if engine == "rtx" else ""
cli.main(["-q", *words])
"""


def refuse(gpu: str | None, declared: str | None, *words: str | Path) -> tuple[int, str]:
    """A command where TensorRT, torch and (`poisoned`) the driver must not be touched: exit code and message."""
    arguments = json.dumps([gpu, declared, *map(str, words)])
    done = subprocess.run(
        [sys.executable, "-c", POISONED, arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert is_one_clear_line(done.stderr), done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_engine_is_refused(engine: Path, spoil: Callable[[Path], None]) -> None:
    spoil(engine)
    code, message = refuse("poisoned", "1.0", "validate", engine)
    assert (code, SPOILED[spoil] in message) == (5, True)


def test_a_foreign_engine_is_refused(engine: Path) -> None:
    """Neither a plan of another maker, nor one beside the sidecar of another."""
    foreign = engine.with_name("foreign.engine")
    foreign.write_bytes(engine.read_bytes())
    code, message = refuse("poisoned", "1.0", "validate", foreign)
    assert (code, "not known what it is" in message) == (5, True)
    shutil.copy(engine.with_name(engine.name + ".json"), f"{foreign}.json")
    foreign.write_bytes(b"ftrt another plan")
    code, message = refuse("poisoned", "1.0", "bench", foreign)
    assert (code, "is not the file that" in message) == (5, True)
    code, message = refuse("poisoned", "1.0", "validate", engine.with_name("absent.engine"))
    assert (code, "absent.engine does not exist" in message) == (5, True)


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.parametrize(
    ("gpu", "declared", "reason"),
    [
        (None, None, "no GPU here"),
        ("sm89", "99.1", "here is 99.1"),
        ("sm90", None, "built for sm89, here is sm90 (a card)"),
        ("sm89", "", "TensorRT-RTX is not installed"),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused(
    engine: Path, command: str, gpu: str | None, declared: str | None, reason: str
) -> None:
    code, message = refuse(gpu, declared, command, engine)
    assert code == 6
    assert reason in message
    assert "samdec-export engines" in message


def test_an_engine_takes_no_provider(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "validate", engine, "--provider", "cuda")
    assert (code, "is an engine" in err) == (2, True)


@pytest.mark.skipif("CUDAExecutionProvider" in installed_providers(), reason="this ONNX Runtime has CUDA")
def test_a_provider_that_is_not_here(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("validate", typed(), "--provider", "cuda"), ("bench", f"{typed()}@ort-cuda")):
        code, _, err = call(capsys, *words)
        assert (code, is_one_clear_line(err)) == (6, True)
        assert "cannot run on cuda here" in err


# Who is compared with whom


@pytest.fixture
def on_a_gpu(built: EngineFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the engine's GPU, where ONNX Runtime stands in for TensorRT and the CPU for eager's GPU."""

    class Eager(eager.EagerRunner):
        def __init__(self, *arguments: Any, device: str = "cpu", **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.where = device

        @property
        def name(self) -> str:
            return f"eager {self.where} {self.dtype}"

    class Engine(OrtRunner):
        name = "the engine"

    monkeypatch.setattr(machine, "first_gpu", lambda: ADA)
    monkeypatch.setattr(eager, "EagerRunner", Eager)
    monkeypatch.setattr(trt_load, "load_engine", lambda file: file)
    monkeypatch.setattr(
        trt_polygraphy, "PolygraphyRunner", lambda file: Engine(built.path.with_name(built.record.onnx))
    )


def test_an_engine_is_compared_with_three_references(
    engine: Path, on_a_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "validate", engine, "--sweep", "quick", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [(found["candidate"], found["reference"]) for found in report["comparisons"]] == [
        ("the engine", "eager cuda torch.float32"),
        ("the engine", "eager cpu torch.float32"),
        (report["comparisons"][2]["candidate"], "eager cpu torch.float32"),
        ("the engine", report["comparisons"][2]["candidate"]),
    ]
    assert "oracle" in report["comparisons"][2]["candidate"]
    assert f"validate {engine}" in report["replay"]


def test_without_its_onnx_file_there_is_no_oracle(
    engine: Path, on_a_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.with_name("sam_tiny.decoder.fp16.onnx").unlink()
    code, out, err = call(capsys, "validate", engine, "--sweep", "quick", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert len(report["comparisons"]) == 2
    assert "does not lie beside the engine" in report["notes"][0]


def test_an_engine_that_computes_something_else_fails(
    engine: Path, on_a_gpu: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(OrtRunner):
        def run(self, feeds: Feeds) -> Outputs:
            return {name: 0.9 * array for name, array in super().run(feeds).items()}

    monkeypatch.setattr(trt_polygraphy, "PolygraphyRunner", lambda file: Wrong(file.onnx))
    code, out, err = call(capsys, "validate", engine, "--sweep", "quick", "--json")
    assert (code, is_one_clear_line(err)) == (7, True)
    passed = [found["passed"] for found in json.loads(out)["comparisons"]]
    assert passed == [False, False, True, False]


def test_a_sweep_stays_within_the_profiles(built: EngineFile) -> None:
    record = built.record.source
    candidate = Candidate(artifact=open_artifact(built.path.with_name(built.record.onnx)), engine=built)
    cases = select_cases(record, within=candidate.signatures)
    sizes = {tuple(part.split("=")[1] for part in case.name.split(",")[:2]) for case in cases}
    assert {("1", "2"), ("2", "1"), ("3", "4")} <= sizes
    assert all((batch, points) == ("1", "2") or (batch in "23" and 1 <= int(points) <= 4) for batch, points in sizes)
    assert len({case.name for case in cases}) == len(cases)


def test_tf32_is_judged_as_what_it_rounds_to(built: EngineFile) -> None:
    settings = {**built.record.settings, "tf32": True}
    source = replace(built.record.source, precision="fp32")
    record = replace(built.record, settings=settings, source=source)
    artifact = replace(open_artifact(built.path.with_name(built.record.onnx)), record=source)
    assert Candidate(artifact=artifact, engine=replace(built, record=record)).rounding == "fp16"
    assert Candidate(artifact=artifact, engine=built).rounding == "fp32"


def test_ranges_narrow_every_axis_of_that_name(built: EngineFile) -> None:
    signature = built.record.source.signature
    (first, second) = (signature.within(profile) for profile in PROFILES)
    assert [(dim.name, dim.min, dim.max) for dim in first.dims] == [("batch", 1, 1), ("points", 2, 2)]
    assert second.outputs[0].labels == signature.outputs[0].labels
    assert signature.within((BATCH,)).dims[0].independent == BATCH.independent


# Timing


def test_what_runs_a_file() -> None:
    assert parse_entry("a.engine", None).runner == "trt"
    assert parse_entry("a.onnx", None).runner == "ort"
    assert parse_entry("a.onnx@ort-cuda", None).runner == "ort-cuda"
    for text in ("a.engine@eager", "a.onnx@trt"):
        with pytest.raises(UsageError, match="There is no runner"):
            parse_entry(text, None)


def test_a_workload_outside_of_the_profiles_is_said(engine: Path, on_a_gpu: None) -> None:
    candidate = open_candidate(engine)
    assert case_for(candidate, {"images": 1, "prompts": 2, "points": 4}).sizes == {"batch": 2, "points": 4}
    with pytest.raises(ValueError, match="no profile for batch=8"):
        case_for(candidate, {"images": 1, "prompts": 8, "points": 2})


def test_an_engine_is_timed_by_its_runner(
    engine: Path, on_a_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The worker is a stand-in that answers with bursts; what is around it is real."""
    worker = (
        "import json, sys\nprint(json.dumps({'ready': True}), flush=True)\nfor line in sys.stdin:\n"
        "    n = json.loads(line)['prompts']\n"
        "    many = {'seconds': [n * s / 1000 for s in (1, 2, 3, 4)] if 'engine' in sys.argv[2] else 0.5}\n"
        "    print(json.dumps({**many, 'peak_bytes': 1} if n < 4 else {'unsupported': 'no profile'}), flush=True)\n"
    )
    monkeypatch.setattr(bench, "WORKER", (sys.executable, "-c", worker))
    code, out, err = call(capsys, "bench", engine, "--prompts", "2", "--points", "2", "--repeats", "2", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["measurements"]
    assert row["seconds"] == [0.002, 0.004, 0.006, 0.008] * 2
    assert row["percentiles"]["p50"] == pytest.approx(0.005)
    assert row["percentiles"]["p99"] == pytest.approx(0.008)
    assert row["prompts_per_second"] == pytest.approx(400)
    assert row["on_gpu"] is True
    assert row["flops"] > 0
    code, out, _ = call(capsys, "bench", engine, "--prompts", "2", "--points", "2", "--repeats", "1")
    assert code == 0
    assert "p99" in out
    assert "prompts/s" in out


def test_a_worker_that_cannot_run_an_engine_says_so(engine: Path) -> None:
    words = [sys.executable, "-m", "samdec_export.bench.worker", "trt", str(engine)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "cannot run here" not in done.stderr:
        pytest.skip("this engine can run here")
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
