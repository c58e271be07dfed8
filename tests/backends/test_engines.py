"""What an engine is built from and with, the files it leaves, and which of them a machine can run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import call, is_one_clear_line
from conftest import Typed

from samdec_export import api
from samdec_export.backends.machine import Gpu, Machine
from samdec_export.backends.tensorrt import engine as engines
from samdec_export.backends.tensorrt.api import load
from samdec_export.backends.tensorrt.engine_file import EngineFile, open_engine
from samdec_export.backends.tensorrt.index import list_engines, obstacle
from samdec_export.backends.tensorrt.options import DEFAULT_TARGETS, BuildOptions
from samdec_export.core.errors import DependencyError, EngineError, GraphError, ValidationError
from samdec_export.core.signature import Dim, Signature, TensorSpec
from samdec_export.models.checkpoint import LoadedModel

RTX = BuildOptions(engine="rtx", targets=("sm89",))
NO_GPU = Machine(gpu=None, versions={"rtx": "1.7.1"})
ADA = Gpu(name="an Ada card", target="sm89")
HOPPER = Gpu(name="a Hopper card", target="sm90")


def test_trt_fp16_exactly_as_written(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "trt", "--fp16")
    assert (code, "no exported ONNX file in artifacts" in err) == (2, True)
    Path("artifacts").mkdir()
    shutil.copy(typed(), "artifacts")
    for _ in range(2):  # the second time the conversion is there, and is no second export
        code, out, err = call(capsys, "trt", "--fp16", "--json")
        assert code == 0, err
        assert json.loads(out)["artifact"]["source"]["precision"] == "fp16"
    shutil.copy(typed(), "artifacts/another.onnx")
    code, _, err = call(capsys, "trt", "--fp16")
    assert (code, is_one_clear_line(err)) == (2, True)
    assert "sam_tiny.decoder.onnx" in err
    assert "another.onnx" in err
    code, _, err = call(capsys, "trt", "artifacts/sam_tiny.decoder.fp16.onnx", "--bf16")
    assert (code, "is fp16 already" in err) == (2, True)
    names = sorted(path.name for path in Path("artifacts").glob("*.engine"))
    assert len(names) == 1
    code, out, _ = call(capsys, "engines")
    assert (code, names[0] in out) == (0, True)


def test_a_conversion_is_validated_where_there_is_a_checkpoint(typed: Typed, tmp_path: Path, tiny: LoadedModel) -> None:
    weights = tiny.decoder.state_dict()
    weights["mask_decoder.mask_tokens.weight"] = weights["mask_decoder.mask_tokens.weight"] + 1
    torch.save(weights, tmp_path / "other.pt")
    shutil.copy(typed(), tmp_path)
    with pytest.raises(ValidationError, match="the weights of"):
        api.build_engine(tmp_path / typed().name, RTX, tmp_path / "other.pt", precision="fp16")
    assert not list(tmp_path.glob("*.engine"))


@pytest.mark.parametrize(
    ("machine", "engine"),
    [
        (NO_GPU, "rtx"),
        (Machine(gpu=ADA, versions={"rtx": "1.7.1", "tensorrt": "11.4.0"}), "tensorrt"),
        (Machine(gpu=None, versions={"rtx": "1.7.1", "tensorrt": "11.4.0"}), "rtx"),
    ],
)
def test_the_engine_is_one_that_can_build_here(machine: Machine, engine: str) -> None:
    assert engines.choose_engine(None, machine) == engine


def test_no_engine_can_build_here() -> None:
    with pytest.raises(DependencyError, match=r"builds on a GPU.*samdec-export\[rtx\]"):
        engines.choose_engine(None, Machine(gpu=None, versions={"tensorrt": "11.4.0"}))
    with pytest.raises(DependencyError, match="TensorRT is not installed"):
        engines.choose_engine("tensorrt", NO_GPU)


@pytest.mark.parametrize(("gpu", "targets"), [(None, DEFAULT_TARGETS), (ADA, ("sm89",)), (HOPPER, DEFAULT_TARGETS)])
def test_targets_where_none_are_named(gpu: Gpu | None, targets: tuple[str, ...]) -> None:
    batch = Dim(name="batch", min=1, opt=1, max=4)
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(batch, 2), content="embedding"),), outputs=()
    )
    resolved = engines.resolve(BuildOptions(), "rtx", replace(NO_GPU, gpu=gpu), signature)
    assert (resolved.targets, resolved.profiles) == (targets, ((batch,),))


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(DependencyError, match=r"pip install 'samdec-export\[rtx\]'"):
        load("rtx")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot be read"):
        api.build_engine(tmp_path / "absent.onnx", RTX)


# The files, and who can run them


@pytest.fixture(scope="module")
def built(typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return api.build_engine(typed(), RTX, out=tmp_path_factory.mktemp("built")).engine


@pytest.fixture
def engine(built: EngineFile, tmp_path: Path) -> Path:
    """A copy of an engine and its sidecar, to spoil."""
    shutil.copy(built.sidecar, tmp_path)
    return Path(shutil.copy(built.path, tmp_path))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_another(path: Path) -> None:
    path.write_bytes(b"an engine of another make")


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def empty_the_sidecar(path: Path) -> None:
    sidecar(path).write_text("{}")


def garble_the_sidecar(path: Path) -> None:
    sidecar(path).write_text("{" * 9)


def lose_the_sidecar(path: Path) -> None:
    sidecar(path).unlink()


SPOILED: dict[Callable[[Path], None], str] = {
    truncate: "cut off, changed or replaced",
    flip_a_bit: "cut off, changed or replaced",
    replace_by_another: "cut off, changed or replaced",
    empty_the_sidecar: "damaged, or not of an engine",
    garble_the_sidecar: "is damaged",
    lose_the_sidecar: "not known what it is",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_engine_is_told_without_cuda(
    engine: Path, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(engine)
    monkeypatch.setitem(sys.modules, "samdec_export.backends.machine", None)  # importing it would be a mistake
    with pytest.raises(EngineError, match=SPOILED[spoil]):
        open_engine(engine)
    (listed,) = list_engines(engine.parent)
    assert listed.engine is None
    assert SPOILED[spoil] in listed.obstacle
    code, out, _ = call(capsys, "engines", engine.parent, "--json")
    (entry,) = json.loads(out)
    assert (code, entry["sound"], entry["runs_here"]) == (0, False, False)


def test_a_sidecar_reads_back(engine: Path, built: EngineFile) -> None:
    assert open_engine(engine).to_json() == built.to_json()


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (lambda version: Machine(gpu=ADA, versions={"rtx": version}), ""),
        (lambda version: Machine(gpu=None, versions={"rtx": version}), "no GPU here"),
        (lambda version: Machine(gpu=ADA, versions={"tensorrt": version}), "TensorRT-RTX is not installed"),
        (lambda version: Machine(gpu=ADA, versions={"rtx": "99.1"}), "here is 99.1"),
        (lambda version: Machine(gpu=HOPPER, versions={"rtx": version}), "built for sm89, here is sm90"),
    ],
)
def test_who_can_run_an_engine(built: EngineFile, machine: Callable[[str], Machine], reason: str) -> None:
    found = obstacle(built.record, machine(built.record.version))
    assert reason in found
    assert bool(reason) == bool(found)


@pytest.mark.parametrize(
    ("option", "version", "target", "runs"),
    [
        ("version_compat", "10.14.1", "sm89", True),
        ("version_compat", "10.12.0", "sm89", False),
        ("version_compat", "11.0.0", "sm89", False),
        ("hardware_compat", "10.13.0", "sm120", True),
        ("hardware_compat", "10.13.0", "sm75", False),
    ],
)
def test_compatible_engines_of_tensorrt(built: EngineFile, option: str, version: str, target: str, runs: bool) -> None:
    settings = {**built.record.settings, option: True}
    record = replace(built.record, engine="tensorrt", version="10.13.0", settings=settings)
    machine = Machine(gpu=Gpu(name="a card", target=target), versions={"tensorrt": version})
    assert (not obstacle(record, machine)) == runs


def test_a_folder_of_engines_is_listed(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(engine, engine.with_name("stray.engine"))
    code, out, _ = call(capsys, "engines", engine.parent)
    assert code == 0
    assert "rtx" in out
    assert "sam_tiny.decoder.onnx" in out
    assert "cannot run here: " in out
    (engine.parent / "empty").mkdir()
    assert call(capsys, "engines", engine.parent / "empty")[:2] == (0, "No engines.\n")
    code, _, err = call(capsys, "engines", engine.parent / "absent")
    assert (code, is_one_clear_line(err)) == (2, True)


def test_doctor_says_who_can_build(capsys: pytest.CaptureFixture[str]) -> None:
    builders = json.loads(call(capsys, "doctor", "--json")[1])["builders"]
    assert builders["tensorrt_rtx"] == ""
    assert "tensorrt" in builders
