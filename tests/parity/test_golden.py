"""Goldens: engines judged without torch, and every damage that makes a recording worthless is found."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import Export, Typed
from numpy.typing import NDArray

from samdec_export import api
from samdec_export.core import drawing
from samdec_export.core.drawing import Case
from samdec_export.core.errors import UsageError, ValidationError
from samdec_export.core.feeds import make_feeds
from samdec_export.core.signature import Dim
from samdec_export.models.checkpoint import load_model
from samdec_export.parity.golden import GOLDEN_SCHEMA

Arrays = dict[str, NDArray[Any]]

WITHOUT_TORCH = """
import sys

class Blocked:
    names = "torch onnxscript onnxslim onnx_ir safetensors transformers segment_anything polygraphy".split()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not on this machine")

sys.meta_path.insert(0, Blocked())
for name in Blocked.names:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported: this proves nothing")
from samdec_export.cli.app import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def recorded(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick sweep of the tiny decoder."""
    return api.record(export().artifact.path, out=tmp_path_factory.mktemp("golden") / "tiny.npz").path


def without_torch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, "-q", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def contents(path: Path) -> Arrays:
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def rewrite(path: Path, target: Path, change: Callable[[dict[str, Any], Arrays], None]) -> Path:
    """The golden at `path` with its record or arrays changed, as a careless or hostile tool would."""
    arrays = contents(path)
    record = json.loads(str(arrays.pop("golden")))
    change(record, arrays)
    np.savez(target, golden=np.array(json.dumps(record)), **arrays)  # type: ignore[arg-type]
    return target


def perturbed(path: Path, target: Path, factor: float) -> Path:
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: math.prod(t.dims))
    array = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_golden_judges_without_torch_or_checkpoint(typed: Typed, recorded: Path, precision: str) -> None:
    done = without_torch("validate", typed(precision), "--golden", recorded, "--json")
    assert done.returncode == 0, done.stderr
    comparisons = json.loads(done.stdout)["comparisons"]
    whole = len(api.golden(recorded).golden.record.cases)
    counts = [len(item["cases"]) for item in comparisons]
    assert counts[0] == whole, "bf16 runs in the oracle alone"
    assert len(counts) == {"fp32": 1, "fp16": 3, "bf16": 1}[precision]
    assert all(0 < count < whole for count in counts[1:]), "the oracle is asked of small cases where there is more"
    oracles = [item for item in comparisons if item["candidate"].startswith("oracle")]
    assert len(oracles) == (precision != "fp32")
    assert comparisons[0]["tolerance"]["logits"] == {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}[precision]


def test_a_broken_file_fails_without_torch(export: Export, recorded: Path, tmp_path: Path) -> None:
    broken = perturbed(export().artifact.path, tmp_path / "broken.onnx", 1.01)
    done = without_torch("validate", broken, "--golden", recorded)
    assert done.returncode == 7
    assert f"validate {broken} --golden {recorded} --case" in done.stderr


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_golden_says_what_eager_says(typed: Typed, recorded: Path, precision: str) -> None:
    here, replayed = api.validate(typed(precision), sweep="quick"), api.validate(typed(precision), golden=recorded)
    for now, then in zip(here.results, replayed.results, strict=True):
        assert (then.cases, then.limits) == (now.cases, now.limits)
        assert then.floors == now.floors


def test_recordings_are_byte_identical(export: Export, recorded: Path, tmp_path: Path) -> None:
    again = api.record(export().artifact.path, out=tmp_path / "tiny.npz").path
    assert again.read_bytes() == recorded.read_bytes()


def test_arrays_are_plain_numpy(recorded: Path, tiny: Any) -> None:
    arrays = contents(recorded)
    record = json.loads(str(arrays.pop("golden")))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert {key.split("/")[0] for key in arrays} == {"outputs"}
    assert arrays["outputs/0/masks"].shape == (1, 3, 32, 32)
    assert record["artifact"]["checkpoint"]["weights_sha256"] == tiny.checkpoint.weights_sha256
    assert record["tools"]["torch"]


def test_one_golden_serves_other_arrangements_and_ranges(export: Export, recorded: Path) -> None:
    narrow = Dim(name="points", min=1, opt=2, max=11)
    done = api.validate(export(arrangement="reference", ranges=(narrow,)).artifact.path, golden=recorded)
    assert done.result.passed
    assert len(done.notes) == 1
    for part in ("batch=1,points=16,first=12 (points 16, not 1 to 11)", "warning: outside the ranges", "more."):
        assert part in done.notes[0]


def test_a_case_is_replayed_alone(export: Export, recorded: Path) -> None:
    done = api.validate(export().artifact.path, golden=recorded, case="batch=3,points=2,first=6")
    assert [case.case for case in done.result.cases] == ["batch=3,points=2,first=6"]
    with pytest.raises(UsageError, match="There is no case"):
        api.validate(export().artifact.path, golden=recorded, case="batch=4,points=2")


def test_recorded_floors_allow_what_the_reference_cannot_promise(
    export: Export, recorded: Path, tmp_path: Path
) -> None:
    near = perturbed(export().artifact.path, tmp_path / "near.onnx", 1.0002)
    assert not api.validate(near, golden=recorded).result.passed

    def coarse(record: dict[str, Any], arrays: Arrays) -> None:
        for case in record["cases"]:
            case["floors"] = dict.fromkeys(case["floors"], 2e-4)

    blurred = rewrite(recorded, tmp_path / "coarse.npz", coarse)
    result = api.validate(near, golden=blurred).result
    assert result.allowed["masks"] == pytest.approx(8e-4)
    assert all(case.passed for case in result.cases)

    def doubtful(record: dict[str, Any], arrays: Arrays) -> None:
        for case in record["cases"]:
            case["floors"] = dict.fromkeys(case["floors"], 0.99)

    unbound = rewrite(recorded, tmp_path / "unbound.npz", doubtful)
    result = api.validate(near, golden=unbound).result
    assert {bad.metric for case in result.cases for bad in case.violations} == {"reference", "undecided pixels"}


def test_recorded_feeds_are_stored(export: Export, tmp_path: Path) -> None:
    path = export().artifact.path
    feeds = make_feeds(export().artifact.record.signature, Case(sizes={"batch": 2, "points": 3}), seed=5)
    np.savez(tmp_path / "clicks.npz", **feeds)  # type: ignore[arg-type]
    done = api.record(path, out=tmp_path / "g.npz", feeds=tmp_path / "clicks.npz")
    assert {f"inputs/0/{name}" for name in feeds} < {*contents(done.path)}
    (tmp_path / "clicks.npz").unlink()
    validated = api.validate(path, golden=done.path)
    assert [case.case for case in validated.result.cases] == ["clicks"]
    assert validated.result.passed


def test_kept_inputs_need_no_generator(
    export: Export, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export().artifact.path
    kept = api.record(path, out=tmp_path / "kept.npz", keep_inputs=True).path
    drawn = np.random.default_rng

    def other(seed: Any) -> np.random.Generator:
        return drawn([*seed, 1])

    monkeypatch.setattr(np.random, "default_rng", other)
    monkeypatch.setattr("samdec_export.core.drawing._slice", drawing._slice.__wrapped__)  # which keeps what it drew
    assert api.validate(path, golden=kept).result.passed
    with pytest.raises(UsageError, match=r"cannot be had again: NumPy .* draws others than .*") as caught:
        api.validate(path, golden=recorded)
    assert "keep_inputs" in caught.value.advice


def test_other_weights_fail(tmp_path: Path, export: Export, recorded: Path) -> None:
    def other(record: dict[str, Any], arrays: Arrays) -> None:
        record["artifact"]["checkpoint"]["weights_sha256"] = "0" * 64

    stale = rewrite(recorded, tmp_path / "stale.npz", other)
    with pytest.raises(
        ValidationError, match=r"the weights of stale\.npz are not those that sam_tiny\.decoder\.onnx was"
    ):
        api.validate(export().artifact.path, golden=stale).require()


CONTRACTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "masks": (lambda record: record.update(masks="single"), "masks single, not multi"),
    "graph": (lambda record: record.update(graph="prompts"), "graph prompts, not decoder"),
    "axes": (lambda record: record.update(dynamic_grid=True), "dynamic_grid True, not False"),
    "types": (
        lambda record: record["signature"]["outputs"][0].update(dtype="float16"),
        r"outputs such as masks float16 \('batch', 3, 32, 32\)",
    ),
    "names": (
        lambda record: record["signature"]["inputs"][0].update(name="image"),
        r"inputs such as image float32 \(1, 32, 8, 8\)",
    ),
}


@pytest.mark.parametrize("kind", CONTRACTS)
def test_another_contract_fails(export: Export, recorded: Path, tmp_path: Path, kind: str) -> None:
    change, message = CONTRACTS[kind]
    other = rewrite(recorded, tmp_path / "other.npz", lambda record, arrays: change(record["artifact"]))
    with pytest.raises(ValidationError, match=rf"was recorded for another contract .*: {message}\.") as caught:
        api.validate(export().artifact.path, golden=other)
    assert "samdec-export record" in caught.value.advice


def drop_an_array(record: dict[str, Any], arrays: Arrays) -> None:
    del arrays["outputs/3/masks"]


def plant_a_nan(record: dict[str, Any], arrays: Arrays) -> None:
    arrays["outputs/2/masks"][0, 0, 1, 1] = np.nan


def crop(record: dict[str, Any], arrays: Arrays) -> None:
    arrays["outputs/2/masks"] = arrays["outputs/2/masks"][..., :31]


def widen(record: dict[str, Any], arrays: Arrays) -> None:
    arrays["outputs/2/masks"] = arrays["outputs/2/masks"].astype(np.float64)


def plant_an_object(record: dict[str, Any], arrays: Arrays) -> None:
    arrays["outputs/2/masks"] = np.array([{}])


def set_schema(record: dict[str, Any], arrays: Arrays) -> None:
    record["schema_version"] = GOLDEN_SCHEMA + 1


def forget_schema(record: dict[str, Any], arrays: Arrays) -> None:
    del record["schema_version"]


def empty(record: dict[str, Any], arrays: Arrays) -> None:
    record["cases"] = []


def set_in_case(**fields: Any) -> Callable[[dict[str, Any], Arrays], None]:
    return lambda record, arrays: record["cases"][0].update(fields)


DAMAGED: dict[str, tuple[Callable[[dict[str, Any], Arrays], None], str]] = {
    "missing array": (drop_an_array, "outputs/3/masks is missing"),
    "NaN": (plant_a_nan, "masks holds 1 NaN or Inf"),
    "another shape": (crop, r"masks is float32 \(., 3, 32, 31\), not"),
    "another dtype": (widen, "masks is float64"),
    "objects": (plant_an_object, "is damaged"),
    "another schema": (set_schema, f"is of schema {GOLDEN_SCHEMA + 1}; this samdec-export reads {GOLDEN_SCHEMA}"),
    "no schema": (forget_schema, "is damaged: 'schema_version'"),
    "no cases": (empty, "no cases"),
    "endless floor": (set_in_case(floors={"masks": math.inf, "iou_predictions": 0.0}), "floors are"),
    "floor of a stranger": (set_in_case(floors={"masks": 0.0}), "floors are"),
    "no size": (set_in_case(sizes={"batch": 1}), "sizes are"),
    "absurd size": (set_in_case(sizes={"batch": 1 << 60, "points": 1}), "is damaged: batch is"),
    "another size": (set_in_case(sizes={"batch": 2, "points": 1}), "cannot be had again"),
    "mask of another kind": (set_in_case(mask_input="sometimes"), "mask_input is 'sometimes'"),
    "inputs not there": (set_in_case(stored=True), "inputs/0/.* is missing"),
    "no text": (set_in_case(name=["x"]), "is damaged"),
    "a list": (lambda record, arrays: record.update(artifact=[1]), "is damaged"),
    "another seed": (lambda record, arrays: record.update(seed=1), "cannot be had again"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_golden_is_told(export: Export, recorded: Path, tmp_path: Path, kind: str) -> None:
    change, message = DAMAGED[kind]
    bad = rewrite(recorded, tmp_path / "bad.npz", change)
    with pytest.raises(UsageError, match=message) as caught:
        api.validate(export().artifact.path, golden=bad)
    assert "bad.npz" in str(caught.value)


def test_a_damaged_archive_is_told(export: Export, recorded: Path, tmp_path: Path) -> None:
    whole = recorded.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", whole[: len(whole) // 3], flipped, b"PK\x03\x04", b"not an archive", b"\x80\x04."):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.npz is no golden, or is damaged"):
            api.validate(export().artifact.path, golden=tmp_path / "bad.npz")
    np.savez(tmp_path / "feeds.npz", x=np.zeros(3))
    with pytest.raises(UsageError, match="is no golden: it holds no record"):
        api.validate(export().artifact.path, golden=tmp_path / "feeds.npz")
    for absent in (tmp_path, tmp_path / "nowhere.npz"):
        with pytest.raises(UsageError, match="does not exist, or is not a file"):
            api.validate(export().artifact.path, golden=absent)


@pytest.mark.parametrize("options", [{"seed": 0}, {"sweep": "full"}, {"checkpoint": Path("x")}, {"feeds": Path("x")}])
def test_options_without_effect_are_refused(export: Export, recorded: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="would have no effect"):
        api.validate(export().artifact.path, golden=recorded, **options)


def test_weights_of_another_model_are_not_recorded(export: Export, tmp_path: Path) -> None:
    state = load_model(None, "sam_tiny").decoder.state_dict()
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, tmp_path / "other.pt")
    with pytest.raises(ValidationError, match=r"Nothing was recorded: the weights of other\.pt are not those"):
        api.record(export().artifact.path, tmp_path / "other.pt", out=tmp_path / "g.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"other.pt"}


def test_answers_that_are_not_finite_are_not_recorded(export: Export, tmp_path: Path) -> None:
    feeds = dict(make_feeds(export().artifact.record.signature, Case(sizes={"batch": 1, "points": 2})))
    feeds["image_embeddings"] = np.full_like(feeds["image_embeddings"], np.inf)
    np.savez(tmp_path / "wild.npz", **feeds)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"is no reference in case wild: masks holds \d+ NaN or Inf"):
        api.record(export().artifact.path, out=tmp_path / "g.npz", feeds=tmp_path / "wild.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"wild.npz"}


def test_a_golden_never_replaces_what_it_is_about(export: Export, tmp_path: Path) -> None:
    path = export().artifact.path
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is an input of this run"):
        api.record(path, out=path)
    assert path.read_bytes() == before


def test_inputs_beyond_their_ranges_are_judged_with_a_warning(export: Export, tmp_path: Path) -> None:
    path = export().artifact.path
    for name, points in (("usual", 16), ("many", 17)):
        sizes = {"batch": 1, "points": points}
        np.savez(tmp_path / f"{name}.npz", **make_feeds(export().artifact.record.signature, Case(sizes=sizes)))  # type: ignore[arg-type]
    assert not api.validate(path, feeds=tmp_path / "usual.npz").notes
    done = api.validate(path, feeds=tmp_path / "many.npz")
    assert done.result.passed
    warning = "warning: outside the ranges that the file was made for: many (points 17, not 1 to 16)."
    assert done.notes == (warning,)
    assert done.to_json()["notes"] == [warning]


@pytest.mark.parametrize("ask", [api.record, api.validate, api.ranges])
def test_a_seed_below_zero_is_refused_in_one_line(export: Export, ask: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="seed -1 is below 0"):
        ask(export().artifact.path, seed=-1)
