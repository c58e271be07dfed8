"""What runs engines and ONNX files on a GPU, here on stand-ins that compute in the memory they are shown."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_tensorrt as fake
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import Typed
from numpy.typing import NDArray

from samdec_export.backends import ort
from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.ort import BURST, BoundRunner, OrtRunner
from samdec_export.backends.tensorrt import load as trt_load
from samdec_export.backends.tensorrt import polygraphy as trt_polygraphy
from samdec_export.backends.tensorrt.engine_file import EngineFile, EngineRecord
from samdec_export.backends.tensorrt.load import LoadedEngine, load_engine
from samdec_export.backends.tensorrt.messages import journal
from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.backends.tensorrt.polygraphy import PolygraphyRunner
from samdec_export.backends.tensorrt.zero_copy import ZeroCopyRunner
from samdec_export.core.errors import DependencyError, EngineError, GraphError
from samdec_export.core.feeds import make_feeds
from samdec_export.core.files import sha256
from samdec_export.core.options import GraphOptions
from samdec_export.core.packages import EngineName
from samdec_export.core.signature import Dim
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.sweeps import sweep

Profiles = tuple[tuple[Dim, ...], ...]

SMALL = (Dim(name="batch", min=1, opt=1, max=2),)
LARGE = (Dim(name="batch", min=3, opt=4, max=8),)


def feeds(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((batch, 3), dtype=np.float32), "label": rng.integers(-1, 4, batch)}


def loaded(engine: fake.Engine, profiles: Profiles = (SMALL, LARGE), flavour: EngineName = "rtx") -> LoadedEngine:
    api: Any = fake.Api(engine)
    whole: Any = engine
    return LoadedEngine(engine=whole, flavour=flavour, api=api, signature=fake.SIGNATURE, profiles=profiles)


# Zero-copy


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> fake.Context:
    made = fake.Context()
    fake.pretend_streams(monkeypatch, made)
    return made


@pytest.fixture
def runner(context: fake.Context) -> ZeroCopyRunner:
    return ZeroCopyRunner(loaded(fake.Engine(context=context)), device="cpu")


def test_tensors_are_read_and_written_where_they_are(runner: ZeroCopyRunner, context: fake.Context) -> None:
    arrays = feeds(4)
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    outputs = runner.launch(inputs)
    np.testing.assert_array_equal(outputs["y"].numpy(), fake.expected(arrays["x"], arrays["label"]))
    assert context.addresses == {name: tensor.data_ptr() for name, tensor in {**inputs, **outputs}.items()}
    assert context.streams == [fake.Stream.cuda_stream]


def test_buffers_are_kept_until_a_larger_one_is_needed(runner: ZeroCopyRunner, context: fake.Context) -> None:
    addresses = []
    for batch in (4, 3, 4, 8, 5):
        arrays = feeds(batch, seed=batch)
        found = runner.run(arrays)
        np.testing.assert_array_equal(found["y"], fake.expected(arrays["x"], arrays["label"]))
        addresses.append({**context.addresses})
    assert addresses[0] == addresses[1] == addresses[2]
    assert addresses[3] == addresses[4]
    assert addresses[3] != addresses[0]


def test_what_was_returned_stays_as_it_is(runner: ZeroCopyRunner) -> None:
    first = runner.run(feeds(4))["y"]
    kept = first.copy()
    runner.run(feeds(4, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_the_profile_is_the_one_that_holds_the_sizes(runner: ZeroCopyRunner, context: fake.Context) -> None:
    for batch in (1, 2, 8, 3, 2):
        runner.run(feeds(batch))
    assert context.profiles == [1, 0]
    with pytest.raises(EngineError, match=r"no profile for batch=9.*batch 1 to 2; batch 3 to 8.*with profiles"):
        runner.run(feeds(9))


def test_a_graph_replays_on_what_its_inputs_hold(runner: ZeroCopyRunner, context: fake.Context) -> None:
    captured = runner.capture(feeds(2))
    assert len(context.streams) == 2, "a run to warm up, and the captured one"
    again = feeds(2, seed=5)
    for name, tensor in captured.inputs.items():
        tensor.copy_(torch.from_numpy(again[name]))
    captured.replay()
    np.testing.assert_array_equal(captured.outputs["y"].numpy(), fake.expected(again["x"], again["label"]))
    assert len(context.streams) == 2


def test_replays_are_timed_by_the_gpus_clock(runner: ZeroCopyRunner) -> None:
    seconds = runner.timer(feeds(2))()
    assert seconds == [2.5e-3] * 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.double(), "x is torch.float64 on cpu, and must be contiguous float32"),
        (lambda x: x.T.contiguous().T, "must be contiguous"),
        (lambda x: x[:, :2].contiguous(), r"do not fit: x has shape .*2.*, not \(4, 3\)"),
        (lambda x: x[:3], r"do not fit: label has shape .*4.*, not \(3,\)"),
    ],
)
def test_other_tensors_are_refused(
    runner: ZeroCopyRunner, context: fake.Context, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    inputs = {name: torch.from_numpy(array) for name, array in feeds(4).items()}
    with pytest.raises(EngineError, match=message):
        runner.launch({**inputs, "x": change(inputs["x"])})
    assert not context.streams


def test_a_refused_run_says_why(runner: ZeroCopyRunner, context: fake.Context) -> None:
    context.refuses = True
    journal(runner.loaded.api).add(fake.Named("ERROR"), "out of memory")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"TensorRT-RTX 11.4.0 refuses the run: out of memory\."):
        runner.run(feeds(2))


def test_only_rtx_is_told_when_to_compile(context: fake.Context) -> None:
    rtx, plain = fake.Engine(context=context), fake.Engine(context=context)
    loaded(rtx).context()
    loaded(plain, flavour="tensorrt").context()
    (config,) = rtx.configs
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
    assert not plain.configs
    with pytest.raises(EngineError, match="refuses to make an execution context"):
        loaded(fake.Engine(context=None)).context()


# Loading


@pytest.fixture
def file(typed: Typed, tmp_path: Path) -> EngineFile:
    """An engine file whose sidecar describes the stand-in's engine."""
    (tmp_path / "m.engine").write_bytes(b"plan")
    (tmp_path / "m.onnx").write_bytes(b"weights")
    record = EngineRecord(
        engine="tensorrt",
        version="11.4.0",
        targets=("sm90",),
        onnx="m.onnx",
        onnx_sha256=sha256(tmp_path / "m.onnx"),
        settings=BuildOptions().settings,
        profiles=(SMALL,),
        tensors=(),
        histogram={},
        warnings=(),
        seconds=1.0,
        tools={},
        source=replace(open_artifact(typed()).record, signature=fake.SIGNATURE),
    )
    return EngineFile(path=tmp_path / "m.engine", record=record, sha256=sha256(tmp_path / "m.engine"))


def with_setting(file: EngineFile, name: str) -> EngineFile:
    return replace(file, record=replace(file.record, settings={**file.record.settings, name: True}))


def serve(monkeypatch: pytest.MonkeyPatch, api: fake.Api) -> fake.Api:
    monkeypatch.setattr(trt_load, "load", lambda engine: api)
    return api


def test_an_engine_loads(file: EngineFile, monkeypatch: pytest.MonkeyPatch) -> None:
    api = serve(monkeypatch, fake.Api(fake.Engine()))
    assert load_engine(file).name == "TensorRT 11.4.0"
    assert load_engine(with_setting(file, "version_compat")).profiles == (SMALL,)
    assert [runtime.engine_host_code_allowed for runtime in api.runtimes] == [False, True]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (None, r"refuses .*m\.engine: the plan is of another version\."),
        (fake.Engine(types={**fake.TYPES, "label": ("INPUT", "INT32")}), "'label', 'INPUT', 'INT32'"),
        (fake.Engine(types={"x": ("INPUT", "FLOAT")}), "its sidecar says"),
        (fake.Engine(sizes=("label",)), "takes sizes as inputs: label"),
    ],
)
def test_an_engine_that_is_not_what_its_sidecar_says(
    file: EngineFile, monkeypatch: pytest.MonkeyPatch, engine: fake.Engine | None, message: str
) -> None:
    serve(monkeypatch, fake.Api(engine))
    with pytest.raises(EngineError, match=message):
        load_engine(file)


def test_weights_are_put_back(file: EngineFile, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stripped = fake.Engine(), with_setting(file, "strip_weights")
    serve(monkeypatch, fake.Api(engine))
    load_engine(stripped)
    assert engine.refitted == [str(file.path.with_name("m.onnx"))]
    serve(monkeypatch, fake.Api(engine, fits=False))
    with pytest.raises(EngineError, match="do not go into the engine: no weights of that name"):
        load_engine(stripped)
    file.path.with_name("m.onnx").write_bytes(b"other weights")
    monkeypatch.setattr(trt_load, "load", lambda engine: pytest.fail("nothing is loaded for what cannot run"))
    with pytest.raises(EngineError, match=r"built without weights.*does not lie beside it"):
        load_engine(stripped)


# Polygraphy


@pytest.fixture
def polygraphy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Polygraphy with a runner of its own kind that needs no GPU, and that reuses its buffers as TrtRunner does."""
    from polygraphy.backend.base import BaseRunner
    from polygraphy.exception import PolygraphyException

    class TrtRunner(BaseRunner):  # type: ignore[misc]
        def __init__(self, engine: Any, name: str) -> None:
            super().__init__(name=name)
            self.profiles: list[int] = []
            self.buffer = np.zeros((8, 6), np.float32)

        def set_profile(self, index: int) -> None:
            self.profiles.append(index)

        def infer_impl(self, feed_dict: Any) -> Any:
            if np.isnan(feed_dict["x"]).any():
                raise PolygraphyException("`execute_async_v3()` failed.")
            view = self.buffer[: len(feed_dict["x"])]
            view[:] = fake.expected(feed_dict["x"], feed_dict["label"])
            return {"y": view}

        def get_input_metadata_impl(self) -> Any:
            from polygraphy.common import TensorMetadata

            return TensorMetadata().add("x", np.float32, (None, 3)).add("label", np.int64, (None,))

    stand_in = SimpleNamespace(
        backend=SimpleNamespace(trt=SimpleNamespace(TrtRunner=TrtRunner)),
        exception=SimpleNamespace(PolygraphyException=PolygraphyException),
    )
    monkeypatch.setattr(trt_polygraphy, "_polygraphy", lambda flavour: stand_in)
    return stand_in


def test_polygraphy_runs_what_it_is_given(polygraphy: Any) -> None:
    runner = PolygraphyRunner(loaded(fake.Engine()))
    results = [(arrays, runner.run(arrays)) for arrays in (feeds(4), feeds(2, 1), feeds(2, 2))]
    for arrays, found in results:
        np.testing.assert_array_equal(found["y"], fake.expected(arrays["x"], arrays["label"]))
    assert runner._runner.profiles == [1, 0]
    assert runner.name == "TensorRT-RTX 11.4.0"
    with pytest.raises(EngineError, match="no profile for batch=9"):
        runner.run(feeds(9))
    with pytest.raises(EngineError, match=r"cannot run the engine: `execute_async_v3\(\)` failed"):
        runner.run({**feeds(2), "x": np.full((2, 3), np.nan, np.float32)})


SELECT = """
import sys
from samdec_export.backends.tensorrt.polygraphy import _polygraphy
from samdec_export.core.errors import EngineError

first, second = sys.argv[1:]
polygraphy = _polygraphy(first)
from polygraphy.backend.trt import runner
module = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}[first]
assert runner.trt.__version__ == __import__(module).__version__
assert polygraphy.backend.trt.TrtRunner
try:
    _polygraphy(second)
except EngineError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.parametrize(("first", "second"), [("rtx", "tensorrt"), ("tensorrt", "rtx")])
def test_polygraphy_serves_the_flavour_that_is_asked_for(tmp_path: Path, first: str, second: str) -> None:
    """The CUDA runtime lies where torch's CUDA 13 packages have it; any library stands in for it."""
    (tmp_path / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    library = next(Path("/").glob("*lib*/*/libm.so.6"), None) or next(Path("/").glob("usr/lib*/**/libm.so.6"))
    (tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13").symlink_to(library)
    (tmp_path / "tensorrt.py").write_text("__version__ = '11.4.0'\n")
    done = subprocess.run(
        [sys.executable, "-c", SELECT, first, second],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Polygraphy serves one TensorRT in a process" in done.stderr


MISSING = """
import polygraphy.cuda
from samdec_export.backends.tensorrt.polygraphy import _polygraphy

def wrapper():
    raise OSError("libcudart.so: cannot open shared object file")

polygraphy.cuda.wrapper = wrapper
_polygraphy("tensorrt")
"""


def test_a_missing_cuda_runtime_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=False)
    assert "DependencyError: The CUDA runtime cannot be loaded: libcudart.so" in done.stderr


# ONNX Runtime


class Session:
    """A session on the CPU that says what a session on a GPU would, as far as a test wants it to."""

    def __init__(self, path: str, options: Any, providers: Any, enable_fallback: int, *, used: list[str]) -> None:
        assert not enable_fallback
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})]
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.used = used

    def get_providers(self) -> list[str]:
        return self.used

    def get_provider_graph_assignment_info(self) -> Any:
        return self.session.get_provider_graph_assignment_info()


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, used: list[str]) -> None:
    module = SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: print("cudnn was not found"),
        InferenceSession=partial(Session, used=used),
    )
    monkeypatch.setattr(ort, "_import", lambda: module)


def test_a_fallback_of_the_whole_session_is_refused(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_cuda(monkeypatch, ["CPUExecutionProvider"])
    with pytest.raises(DependencyError, match="cannot run on cuda here"):
        OrtRunner(typed(), "cuda")
    assert capsys.readouterr().out == "", "results go to standard output"


def test_a_fallback_of_single_nodes_is_refused(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(GraphError, match=r"would run MatMul .* elsewhere than on cuda"):
        OrtRunner(typed(), "cuda")


def test_a_bound_run_is_timed_without_copies(typed: Typed) -> None:
    runner = OrtRunner(typed())
    signature = open_artifact(typed()).record.signature
    arrays = make_feeds(signature, sweep(signature, "quick")[0])
    binding = runner.bind(arrays)
    runner.session.run_with_iobinding(binding)
    for found, wanted in zip(binding.copy_outputs_to_cpu(), runner.run(arrays).values(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    seconds = BoundRunner(runner).timer(arrays)()
    assert len(seconds) == BURST
    assert min(seconds) > 0


# Eager PyTorch


def test_tf32_is_off_while_eager_runs_and_as_it_was_afterwards() -> None:
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor]:
            seen.append((matmul.fp32_precision, conv.fp32_precision))
            return (torch.cat([2 * x, x + label[:, None]], dim=1),)

    matmul: Any = torch.backends.cuda.matmul
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    former = (matmul.fp32_precision, conv.fp32_precision)
    arrays = feeds(2)
    found = EagerRunner(Watching(), fake.SIGNATURE).run(arrays)
    np.testing.assert_array_equal(found["y"], fake.expected(arrays["x"], arrays["label"]))
    assert seen == [("ieee", "ieee")]
    assert (matmul.fp32_precision, conv.fp32_precision) == former


@pytest.mark.parametrize("graph", ["decoder", "prompts"])
def test_a_reference_makes_all_its_tensors_where_its_weights_are(tiny: LoadedModel, graph: Any) -> None:
    """On torch's device of shapes without values, which mixes with no other, as a GPU does not."""
    module = build_graph(tiny.decoder, tiny.grid, GraphOptions(graph=graph, arrangement="reference"))
    moved = copy.deepcopy(module).to("meta")
    arrays = make_feeds(module.signature, sweep(module.signature, "quick")[0])
    inputs = [torch.from_numpy(arrays[spec.name]).to("meta") for spec in module.signature.inputs]
    found = moved(*inputs)
    assert all(output.is_meta for output in found)
