"""A model repository for Triton: what is in it, what is refused, and a client that gets the right answers from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import call, is_one_clear_line
from conftest import Export
from google.protobuf import text_format
from kserve_server import DTYPES, dtype_of, read_config, serving
from tritonclient.grpc import model_config_pb2

from samdec_export.backends.tensorrt.engine_file import EngineRecord, open_engine, publish_engine
from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.core.drawing import Case
from samdec_export.core.errors import DependencyError, EngineError, GraphError, SamdecError, UsageError
from samdec_export.core.feeds import make_feeds, sizes_of
from samdec_export.core.options import GRAPHS, GraphName, GraphOptions
from samdec_export.core.signature import Dim, Signature
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.sam.graphs import build_graph
from samdec_export.serving import client
from samdec_export.serving.bundle import bundle
from samdec_export.serving.options import ServingOptions
from samdec_export.serving.repository import ServedModel, config_text

USUAL = ServingOptions()


@pytest.fixture(scope="module")
def prompts(export: Export) -> Path:
    return export(graph="prompts").artifact.path


@pytest.fixture(scope="module")
def meta(export: Export) -> Path:
    return export(graph="meta").artifact.path


@pytest.fixture(scope="module")
def models(prompts: Path, meta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "models"
    bundle([prompts, meta], USUAL, out)
    return out


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


# The configuration


def test_a_configuration_says_what_the_file_says(models: Path, prompts: Path) -> None:
    config = read_config(models / "sam_tiny.prompts")
    session = onnxruntime.InferenceSession(str(prompts))
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 4)
    for tensors, values in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in tensors] == [value.name for value in values]
        for tensor, value in zip(tensors, values, strict=True):
            assert value.shape[0] == "images"
            assert list(tensor.dims) == [size if isinstance(size, int) else -1 for size in value.shape[1:]]
            assert value.type == {"float32": "tensor(float)", "int64": "tensor(int64)"}[dtype_of(tensor.data_type)]


@pytest.mark.parametrize(
    ("graph", "batch", "first"), [("prompts", 4, [32, 8, 8]), ("decoder", 0, [1, 32, 8, 8]), ("meta", 0, [1, 32, 8, 8])]
)
def test_requests_share_a_batch_only_where_every_tensor_has_it(
    graph: Any, batch: int, first: list[int], tiny: LoadedModel
) -> None:
    config = parsed(config_text(served(tiny, graph), USUAL))
    assert (config.max_batch_size, list(config.input[0].dims)) == (batch, first)
    assert config.HasField("dynamic_batching") == (batch > 0)
    assert all(request.batch_size >= 1 for request in config.model_warmup)
    assert all(
        size >= 1 for request in config.model_warmup for tensor in request.inputs.values() for size in tensor.dims
    )


def served(tiny: LoadedModel, graph: Any, **options: Any) -> ServedModel:
    signature = build_graph(tiny.decoder, 8, GraphOptions(graph=graph, **options)).signature
    return ServedModel(name="x", backend="onnxruntime", signature=signature, profiles=(signature.dims,))


def test_a_batch_of_one_is_not_batched(tiny: LoadedModel) -> None:
    alone = served(tiny, "prompts", ranges=(Dim(name="images", min=1, opt=1, max=1),))
    config = parsed(config_text(alone, USUAL))
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (1, False)
    assert [request.batch_size for request in config.model_warmup] == [1]


def test_every_type_has_a_name(tiny: LoadedModel) -> None:
    model = served(tiny, "prompts", mask_input=True)
    narrow = parsed(config_text(replace(model, signature=model.signature.in_fp16()), USUAL))
    assert {dtype_of(tensor.data_type) for tensor in narrow.input} == set(DTYPES.values())


def test_the_options_arrive(tiny: LoadedModel) -> None:
    wanted = ServingOptions(kind="cpu", instances=3, queue_delay=700, versions="all")
    config = parsed(config_text(served(tiny, "prompts"), wanted))
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert config.dynamic_batching.max_queue_delay_microseconds == 700
    assert config.version_policy.HasField("all")
    assert not config.optimization.execution_accelerators.gpu_execution_accelerator
    usual = parsed(config_text(served(tiny, "prompts"), USUAL))
    assert usual.version_policy.latest.num_versions == 1
    (cuda,) = usual.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})


def test_a_batch_answers_as_its_requests_alone(prompts: Path) -> None:
    """What Triton's dynamic batching relies on: it joins requests along the first axis and cuts the answers apart."""
    signature = open_artifact(prompts).record.signature
    session = onnxruntime.InferenceSession(str(prompts))
    sizes = {"prompts": 3, "points": 2}
    requests = [make_feeds(signature, Case(sizes={"images": images, **sizes}), images) for images in (1, 2)]
    joined = {name: np.concatenate([feeds[name] for feeds in requests]) for name in requests[0]}
    alone = [session.run(None, feeds) for feeds in requests]
    for together, *apart in zip(session.run(None, joined), *alone, strict=True):
        np.testing.assert_allclose(together, np.concatenate(apart), rtol=0, atol=1e-5)


# The folder


def test_each_version_stays_an_artifact(models: Path, prompts: Path) -> None:
    file = models / "sam_tiny.prompts" / "1" / "model.onnx"
    assert file.read_bytes() == prompts.read_bytes()
    assert open_artifact(file).record == open_artifact(prompts).record
    file_and_record = sorted(path.name for path in file.parent.iterdir())
    assert file_and_record == ["model.onnx", "model.onnx.json"]
    assert sorted(path.name for path in models.iterdir()) == [
        "README.md", "client.py", "sam_tiny.meta", "sam_tiny.prompts",
    ]  # fmt: skip


def test_the_readme_names_the_models(models: Path) -> None:
    text = (models / "README.md").read_text()
    assert "| `sam_tiny.prompts` | onnxruntime | 4 |" in text
    assert "| `sam_tiny.meta` | onnxruntime | none |" in text
    assert '"$PWD:/models:ro"' in text
    assert "python client.py sam_tiny.prompts --url" in text


def test_files_of_one_name_are_versions(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.onnx"
    model = onnx.load(prompts)
    model.doc_string = "the same graph, other bytes"
    onnx.save(model, other)
    out = tmp_path / "models"
    code, printed, _ = call(capsys, "bundle", "triton", prompts, other, "--out", out, "--versions", "all", "--json")
    assert code == 0
    (entry,) = json.loads(printed)["models"]
    assert [version["source"] for version in entry["versions"]] == [str(prompts), str(other)]
    assert (out / "sam_tiny.prompts" / "2" / "model.onnx").read_bytes() == other.read_bytes()
    assert read_config(out / "sam_tiny.prompts").version_policy.HasField("all")


def test_the_table_for_people(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "bundle", "triton", prompts, "--out", tmp_path / "models", "--name", "segment")
    assert code == 0
    assert "segment  onnxruntime, batches of up to 4 images" in out
    assert (tmp_path / "models" / "segment" / "config.pbtxt").exists()


# The client, against a server that goes by config.pbtxt and answers with ONNX Runtime


def ask(models: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "client.py", *words]
    return subprocess.run(command, cwd=models, capture_output=True, text=True, check=False, timeout=60)


def test_the_client_gets_what_onnx_runtime_computes(models: Path, prompts: Path, meta: Path, tmp_path: Path) -> None:
    with serving(models) as server:
        for path, sizes in ((prompts, "images=3,prompts=5,points=4"), (meta, "")):
            name = path.name.removesuffix(".onnx")
            signature = open_artifact(path).record.signature
            case = Case(sizes={dim.name: dim.opt for dim in signature.dims} | size_pairs(sizes))
            feeds = make_feeds(signature, case)
            np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]  # numpy's stub takes them for options
            words = ("--url", server.url, "--feeds", f"{tmp_path}/feeds.npz", "--out", f"{tmp_path}/{name}.npz")
            done = ask(models, name, *words)
            assert done.returncode == 0, done.stderr
            expected = onnxruntime.InferenceSession(str(path)).run(None, feeds)
            received = np.load(tmp_path / f"{name}.npz")
            assert received.files == [spec.name for spec in signature.outputs]
            for spec, array in zip(signature.outputs, expected, strict=True):
                np.testing.assert_array_equal(received[spec.name], array)
                assert spec.name in done.stdout


def size_pairs(text: str) -> dict[str, int]:
    return {name: int(size) for name, _, size in (pair.partition("=") for pair in text.split(",") if pair)}


def test_the_client_makes_its_own_inputs_from_the_record(models: Path) -> None:
    with serving(models) as server:
        words = ("--url", server.url, "--size", "prompts=2", "--repeat", "2", "--version", "1")
        done = ask(models, "sam_tiny.prompts", *words)
        assert (done.returncode, server.hosts) == (0, [server.url] * 2), done.stderr
        assert "low_res_masks  float32 (1, 2, 3, 32, 32)" in done.stdout
        assert "median of 2" in done.stdout
        gateway = ("--url", server.url, "--header", "Host: samdec.example.com")
        assert ask(models, "sam_tiny.meta", *gateway).returncode == 0
        assert server.hosts[2:] == ["samdec.example.com"]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dynamic_grid", [False, True])
def test_the_clients_inputs_fit_every_graph(graph: GraphName, dynamic_grid: bool, tiny: LoadedModel) -> None:
    signature = served(tiny, graph, dynamic_grid=dynamic_grid, mask_input=graph == "prompts").signature
    sizes = {dim.name: dim.opt for dim in signature.dims}
    feeds = client.make_feeds(signature.to_json(), sizes)
    assert sizes_of(signature, feeds) == sizes
    assert {name: str(array.dtype) for name, array in feeds.items()} == {s.name: s.dtype for s in signature.inputs}
    assert all(np.isfinite(array).all() for array in feeds.values())
    for spec in signature.outputs:
        answer = np.zeros(spec.concrete(sizes), spec.dtype)
        client.check(as_json(signature, spec.name), answer, feeds, signature.to_json())
        with pytest.raises(ValueError, match=spec.name):
            client.check(as_json(signature, spec.name), answer[..., :-1], feeds, signature.to_json())
        with pytest.raises(ValueError, match="not finite"):
            client.check(as_json(signature, spec.name), answer + np.nan, feeds, signature.to_json())


def as_json(signature: Signature, output: str) -> dict[str, Any]:
    return next(spec for spec in signature.to_json()["outputs"] if spec["name"] == output)


def test_the_client_tells_what_is_wrong(models: Path, tmp_path: Path) -> None:
    with serving(models) as server:
        at = ("--url", server.url)
        assert "no record of model 'absent'" in ask(models, "absent", *at).stderr
        assert "a batch of 5, at most 4" in ask(models, "sam_tiny.prompts", *at, "--size", "images=5").stderr
        copy = shutil.copytree(models, tmp_path / "copy")
        record = copy / "sam_tiny.prompts" / "1" / "model.onnx.json"
        record.write_text(
            record.read_text().replace('"4*height"', "31").replace("          32,\n          32", "31, 31")
        )
        wrong = ask(copy, "sam_tiny.prompts", *at)
    assert wrong.returncode == 1
    assert "output low_res_masks is float32" in wrong.stderr
    refused = ask(models, "sam_tiny.prompts", *at)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


# Engines


@pytest.fixture
def engine(prompts: Path, tmp_path: Path) -> Path:
    """What a TensorRT build of `prompts` would leave: its record, and bytes that nobody loads here."""
    return make_engine(prompts, tmp_path)


def make_engine(prompts: Path, folder: Path, **changes: Any) -> Path:
    source = open_artifact(prompts)
    record = EngineRecord(
        engine="tensorrt",
        version="11.4.0",
        targets=("sm90",),
        onnx=prompts.name,
        onnx_sha256=source.sha256,
        settings=BuildOptions().settings,
        profiles=(source.record.signature.dims,),
        tensors=(),
        histogram={},
        warnings=(),
        seconds=1.0,
        tools={},
        source=source.record,
    )
    draft = folder / "draft"
    draft.write_bytes(b"a plan")
    return publish_engine(draft, replace(record, **changes), folder).path


def test_an_engine_is_served_as_a_plan(engine: Path, tmp_path: Path) -> None:
    bundle([engine], USUAL, tmp_path / "models")
    (folder,) = (path for path in (tmp_path / "models").iterdir() if path.is_dir())
    config = read_config(folder)
    assert (config.platform, config.backend, config.max_batch_size) == ("tensorrt_plan", "tensorrt", 4)
    (group,) = config.instance_group
    assert (group.kind, list(group.profile)) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, [])
    assert not config.HasField("optimization")
    assert open_engine(folder / "1" / "model.plan").sha256 == open_engine(engine).sha256
    assert "TensorRT 11.4.0 for sm90" in (tmp_path / "models" / "README.md").read_text()


def test_an_engines_profiles_are_its_ranges(prompts: Path, tmp_path: Path) -> None:
    dims = open_artifact(prompts).record.signature.dims
    profiles = tuple(
        tuple(replace(dim, opt=most, max=most) if dim.name == "images" else dim for dim in dims) for most in (1, 3)
    )
    settings = {**BuildOptions().settings, "version_compat": True}
    bundle([make_engine(prompts, tmp_path, profiles=profiles, settings=settings)], USUAL, tmp_path / "models")
    (path,) = (tmp_path / "models").glob("*/config.pbtxt")
    config = read_config(path.parent)
    assert (config.max_batch_size, list(config.instance_group[0].profile)) == (3, ["0", "1"])
    assert [request.batch_size for request in config.model_warmup] == [1, 3]
    assert "--backend-config=tensorrt,version-compatible=true" in (tmp_path / "models" / "README.md").read_text()


def test_engines_that_triton_cannot_serve(prompts: Path, tmp_path: Path) -> None:
    dims = open_artifact(prompts).record.signature.dims
    two_or_more = tuple(replace(dim, min=2, opt=2) if dim.name == "images" else dim for dim in dims)
    settings = {**BuildOptions().settings, "strip_weights": True}
    for changes, message in (
        ({"engine": "rtx"}, r"TensorRT-RTX.*cannot load.* Bundle sam_tiny.prompts.onnx instead"),
        ({"settings": settings}, "without its weights"),
        ({"profiles": (two_or_more,)}, "no fewer than 2 images"),
    ):
        with pytest.raises(EngineError, match=message):
            bundle([make_engine(prompts, tmp_path, **changes)], USUAL, tmp_path / "models")
    with pytest.raises(EngineError, match="kind='cpu' is for ONNX files"):
        bundle([make_engine(prompts, tmp_path)], ServingOptions(kind="cpu"), tmp_path / "models")
    assert not (tmp_path / "models").exists()


# What is refused, and what is left behind


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "-flag", "a b", "ä", "a\nb", "x" * 101])
def test_names_that_are_no_folder_or_url(
    name: str, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "bundle", "triton", prompts, "--out", tmp_path / "models", f"--name={name}")
    assert (code, is_one_clear_line(err)) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_record_whose_name_leads_elsewhere(prompts: Path, tmp_path: Path) -> None:
    model = onnx.load(prompts)
    next(entry for entry in model.metadata_props if entry.key == "samdec_export.model").value = "../../up"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(UsageError, match="cannot be called"):
        bundle([tmp_path / "odd.onnx"], USUAL, tmp_path / "models")
    bundle([tmp_path / "odd.onnx"], ServingOptions(name="fine"), tmp_path / "models")


def no_record(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def another_name_of_an_input(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"
    onnx.save(model, path)


def another_files_sidecar(path: Path) -> None:
    path.with_name(f"{path.name}.json").write_text(json.dumps({"sha256": "0" * 64}))


def not_onnx(path: Path) -> None:
    path.write_bytes(b"x")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_record, "carries no record"),
        (another_name_of_an_input, "not those of its record"),
        (another_files_sidecar, "is not the file that"),
        (not_onnx, "is not an ONNX file"),
        (gone, "cannot be read"),
    ],
)
def test_spoiled_files(spoil: Any, message: str, prompts: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(prompts, tmp_path))
    spoil(path)
    with pytest.raises(GraphError, match=message):
        bundle([prompts, path], USUAL, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_engine_without_its_sidecar(engine: Path, tmp_path: Path) -> None:
    engine.with_name(f"{engine.name}.json").unlink()
    with pytest.raises(EngineError, match="not known what it is"):
        bundle([engine], USUAL, tmp_path / "models")


def test_versions_must_agree(prompts: Path, meta: Path, engine: Path, tmp_path: Path) -> None:
    named = ServingOptions(name="one")
    for files, message in (
        ([prompts, meta], "inputs, outputs or ranges differ"),
        ([prompts, engine], "one is for onnxruntime, one for tensorrt"),
        ([prompts, prompts], "are the same file"),
        ([prompts, Path(shutil.copy(prompts, tmp_path / "copy.onnx"))], "are the same file"),
        ([tmp_path / "notes.txt"], r"neither \.onnx nor \.engine"),
    ):
        with pytest.raises(UsageError, match=message):
            bundle(files, named, tmp_path / "models")


def test_what_is_there_stays(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models"
    out.mkdir()
    (out / "of another").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = call(capsys, "bundle", "triton", prompts, "--out", out)
    assert (code, is_one_clear_line(err), "exists already" in err) == (2, True, True)
    assert sorted(tmp_path.rglob("*")) == before
    (out / "of another").unlink()
    assert call(capsys, "bundle", "triton", prompts, "--out", out)[0] == 0  # an empty folder gives way
    (tmp_path / "file").write_text("")
    assert call(capsys, "bundle", "triton", prompts, "--out", tmp_path / "file" / "models")[0] == 2


def test_nothing_half_done_is_seen(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes between the look and the copy: the copy is not what was looked at."""
    path, real = Path(shutil.copy(prompts, tmp_path)), shutil.copyfile

    def changed(source: Path, target: Path) -> None:
        real(source, target)
        target.write_bytes(b"other bytes")

    monkeypatch.setattr(shutil, "copyfile", changed)
    with pytest.raises(GraphError, match="was changed while it was copied"):
        bundle([path], USUAL, tmp_path / "new" / "models")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("missing", ["tritonclient.grpc", "tritonclient"])
def test_a_missing_package_names_its_extra(
    missing: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError, match=r"samdec-export\[triton\]"):
        bundle([prompts], USUAL, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("options", [{"instances": 0}, {"queue_delay": -1}])
def test_numbers_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(SamdecError):
        ServingOptions(**options)  # type: ignore[arg-type]  # numbers only, which mypy cannot tell


def test_tensors_come_in_order(tiny: LoadedModel) -> None:
    signature: Signature = served(tiny, "decoder").signature
    assert signature.tensors == signature.inputs + signature.outputs
