"""Everything that needs a GPU. `scripts/gpu-check` runs this on a machine that has one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from broken_graphs import perturb_a_weight
from command_line import call
from conftest import Typed

from samdec_export import api
from samdec_export.backends.candidates import open_candidate
from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.machine import first_gpu, look
from samdec_export.backends.tensorrt.engine_file import EngineFile, open_engine
from samdec_export.backends.tensorrt.index import obstacle
from samdec_export.backends.tensorrt.load import load_engine
from samdec_export.backends.tensorrt.options import RTX_TARGETS, BuildOptions, parse_profile
from samdec_export.backends.tensorrt.zero_copy import ZeroCopyRunner
from samdec_export.core.feeds import make_feeds
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.sweeps import sweep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(first_gpu() is None, reason="no CUDA driver or no GPU here: scripts/gpu-check runs these"),
]

PRECISIONS = ("fp32", "fp16", "bf16")


@pytest.fixture(scope="module", params=ENGINES)
def flavour(request: pytest.FixtureRequest) -> EngineName:
    """Each TensorRT that is installed and has this GPU among its targets."""
    engine: EngineName = request.param
    machine = look()
    if reason := machine.obstacle(engine):
        pytest.skip(reason)
    if engine == "rtx" and machine.gpu and machine.gpu.target not in RTX_TARGETS:
        pytest.skip(f"TensorRT-RTX does not build for {machine.gpu.target}")
    return engine


def build(path: Path, folder: Path, flavour: EngineName, **options: Any) -> EngineFile:
    """An engine beside a copy of its ONNX file."""
    source = Path(shutil.copy(path, folder))
    return api.build_engine(source, BuildOptions(engine=flavour, **options)).engine


def is_validated(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> dict[str, Any]:
    code, out, err = call(capsys, "validate", path, "--sweep", "quick", "--json", *words)
    assert code == 0, err
    report: dict[str, Any] = json.loads(out)
    assert report["passed"]
    return report


# Validation: Polygraphy's runner, eager on the GPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", ["decoder", "prompts"])
def test_an_engine_equals_eager(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName, graph: str, precision: str
) -> None:
    engine = build(typed(precision, graph=graph), tmp_path, flavour)
    assert not obstacle(engine.record, look())
    report = is_validated(capsys, engine.path)
    references = [found["reference"] for found in report["comparisons"]]
    assert references[0].endswith("float32 cuda")
    assert references[1].endswith("float32")
    assert len(references) == (2 if precision == "fp32" else 4)


def test_several_profiles(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName
) -> None:
    profiles = (parse_profile("batch=1:1:1 points=2:2:2"), parse_profile("batch=2:8:16 points=1:2:16"))
    engine = build(typed(), tmp_path, flavour, profiles=profiles)
    is_validated(capsys, engine.path)


def test_another_engines_weights_fail(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName
) -> None:
    """An engine of a graph whose largest weight was changed does not pass for the right one."""
    source = Path(shutil.copy(typed(), tmp_path))
    model = onnx.load(source)
    perturb_a_weight(model)
    onnx.save(model, source)
    engine = api.build_engine(source, BuildOptions(engine=flavour)).engine
    code, _, _ = call(capsys, "validate", engine.path, "--sweep", "quick")
    assert code == 7


def test_ort_cuda_equals_eager(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (typed(), typed("fp16"), typed(graph="prompts")):
        report = is_validated(capsys, path, "--provider", "cuda")
        assert report["comparisons"][0]["candidate"].endswith("cuda")


# Zero-copy and CUDA graphs


def test_zero_copy_and_its_cuda_graph_equal_eager(
    typed: Typed, tmp_path: Path, tiny: LoadedModel, flavour: EngineName
) -> None:
    engine = build(typed(graph="prompts"), tmp_path, flavour)
    record = engine.record.source
    runner = ZeroCopyRunner(load_engine(engine))
    graph = build_graph(tiny.decoder, record.grid, replace(record.options, arrangement="reference"))
    reference = EagerRunner(graph, record.signature, device="cuda")
    for case in sweep(record.signature, "quick"):
        feeds, other = make_feeds(record.signature, case), make_feeds(record.signature, case, seed=1)
        wanted = reference.run(feeds)
        for name, array in runner.run(feeds).items():
            np.testing.assert_allclose(array, wanted[name], atol=1e-4 * np.ptp(wanted[name]), err_msg=case.name)
        inputs = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
        launched = {name: tensor.clone() for name, tensor in runner.launch(inputs).items()}
        captured = runner.capture(other)
        for name, tensor in captured.inputs.items():
            tensor.copy_(inputs[name])
        captured.replay()
        torch.cuda.synchronize()
        for name, tensor in captured.outputs.items():
            torch.testing.assert_close(tensor, launched[name], atol=0, rtol=0)
        assert min(captured.seconds()) > 0


# Timing


def test_bench_times_engines_beside_onnx_runtime(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName
) -> None:
    engine = build(typed(graph="prompts"), tmp_path, flavour)
    source = tmp_path / engine.record.onnx
    words = ("bench", engine.path, f"{source}@ort-cuda", source, "--prompts", "1,8", "--points", "2", "--repeats", "3")
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    rows = json.loads(out)["measurements"]
    assert len(rows) == 6
    assert all(row["percentiles"]["p99"] >= row["percentiles"]["p50"] > 0 for row in rows)
    assert all(row["prompts_per_second"] > 0 for row in rows)


# Builds that need a GPU


@pytest.mark.parametrize(
    "options",
    [
        {"refit": True},
        {"strip_weights": True},
        {"version_compat": True},
        {"tf32": True},
        {"opt_level": 5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_both(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName, options: dict[str, Any]
) -> None:
    engine = build(typed(), tmp_path, flavour, **options)
    is_validated(capsys, engine.path)


@pytest.mark.parametrize("flavour", ["tensorrt"], indirect=True)
def test_hardware_compatible(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: EngineName
) -> None:
    engine = build(typed(), tmp_path, flavour, hardware_compat=True)
    is_validated(capsys, engine.path)


@pytest.mark.parametrize("flavour", ["tensorrt"], indirect=True)
def test_a_timing_cache_is_written_and_read(typed: Typed, tmp_path: Path, flavour: EngineName) -> None:
    cache = tmp_path / "timing.cache"
    first = build(typed(), tmp_path, flavour, timing_cache=cache)
    assert cache.stat().st_size > 0
    second = build(typed(), tmp_path, flavour, timing_cache=cache)
    assert second.record.seconds < 2 * first.record.seconds
    assert open_engine(second.path).record.settings["timing_cache"] == "timing.cache"


def test_a_plan_without_weights_is_smaller(typed: Typed, tmp_path: Path, flavour: EngineName) -> None:
    sizes = []
    for name, strip in (("whole", False), ("stripped", True)):
        (tmp_path / name).mkdir()
        sizes.append(build(typed(), tmp_path / name, flavour, strip_weights=strip).path.stat().st_size)
    assert sizes[1] < sizes[0]


def test_the_gpu_is_the_one_that_torch_sees() -> None:
    gpu = first_gpu()
    assert gpu is not None
    major, minor = torch.cuda.get_device_capability()
    assert (gpu.name, gpu.target) == (torch.cuda.get_device_name(), f"sm{major}{minor}")


def test_an_engine_of_here_opens_as_a_candidate(typed: Typed, tmp_path: Path, flavour: EngineName) -> None:
    engine = build(typed(), tmp_path, flavour)
    candidate = open_candidate(engine.path)
    assert candidate.onnx == tmp_path / typed().name
    assert candidate.artifact.record == open_artifact(typed()).record
