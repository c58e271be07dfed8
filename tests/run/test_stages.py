"""What stages depend on: every key of the config, every package that does the work, every file of the code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

import samdec_export
from samdec_export.backends.machine import Gpu, Machine
from samdec_export.core.packages import ENGINES
from samdec_export.run import flow, stages
from samdec_export.run.config import RunConfig
from samdec_export.run.job import Job
from samdec_export.run.ledger import Entry, Ledger, Stage, StageOutput, package_files, package_hash
from samdec_export.run.results import StageResult

PACKAGE = Path(samdec_export.__file__).parent

MACHINE = Machine(gpu=Gpu(name="a card", target="sm89"), versions={"tensorrt": "11.4.0", "rtx": "1.7.1"})

CONFIG: dict[str, Any] = {
    "graph": "prompts",
    "precisions": ["fp32", "fp16", "bf16"],
    "engines": {"build": ["tensorrt", "rtx"]},
}
"""Every stage runs: each key below differs from what this leads to."""

OTHERS: dict[str, Any] = {
    "model": "sam_tiny",
    "graph": "decoder",
    "masks": "single",
    "mask_input": True,
    "dynamic_grid": True,
    "arrangement": "reference",
    "ranges": {"points": [1, 3, 9]},
    "opset": 18,
    "precisions": ["fp32", "fp16"],
    "convert.io": None,
    "convert.keep_fp32": ["Softmax"],
    "convert.max_flips": 0.01,
    "convert.margin": 8,
    "convert.protect": False,
    "convert.all_matmuls": True,
    "engines.build": ["rtx"],
    "engines.precisions": ["fp16"],
    "engines.profiles": [{"points": [1, 2, 2]}],
    "engines.targets": ["sm86"],
    "engines.workspace": 64,
    "engines.opt_level": 1,
    "engines.timing_cache": "kernels.cache",
    "engines.hardware_compat": True,
    "engines.version_compat": True,
    "engines.strip_weights": True,
    "engines.refit": True,
    "engines.tf32": True,
    "parity.sweep": "full",
    "parity.seed": 1,
    "bench.enabled": False,
    "bench.images": [2],
    "bench.prompts": [3],
    "bench.points": [4],
    "bench.threads": 1,
    "bench.repeats": 1,
    **{
        f"gate.{precision}.{key}": value
        for precision in ("fp32", "fp16", "bf16")
        for key, value in {
            "iou": 0.5,
            "flipped": 0.5,
            "pixels": 99,
            "best_mask": 0.5,
            "iou_predictions": 0.5,
            "logits": 0.5,
        }.items()
    },
}
"""Another valid value of each key; what needs a file is changed in a test of its own."""

FILES = {"checkpoint", "parity.feeds"}
"""Keys that name a file: its content counts, wherever it lies."""

NO_STAGE = {
    "out": "where the files go: nothing in them differs",
    "gate.latency": "judged when the report is made, from what was timed",
    "gate.require_engines": "judged when the report is made",
}
"""Keys that no stage but the report's depends on, and why."""


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a config; a section that may be left out counts as one."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def config_with(key: str = "", value: Any = None) -> RunConfig:
    """The config above, with one key changed."""
    data = json.loads(json.dumps(CONFIG))
    *sections, last = key.split(".")
    place = data
    for section in sections:
        place = place.setdefault(section, {})
    if key:
        place[last] = value
    return RunConfig.model_validate(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed(StageResult):
    """The result of a stage that was not run: what it would have followed from, and the engine of its record."""

    record: Any
    inputs: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"made of": self.inputs}


class Recorder(Ledger):
    """Runs no stage: notes its inputs, and takes for its result what follows from them."""

    def run_stage(self, stage: Stage[Any]) -> Entry[Any]:
        inputs = json.loads(json.dumps(stage.inputs, default=os.fspath))
        engine = next((name for name in ENGINES if f"-{name}-" in stage.name), None)
        entry: Entry[Any] = Entry(
            folder=self.out,
            stage=stage.name,
            inputs=inputs,
            files={},
            result=Followed(record=SimpleNamespace(engine=engine), inputs=inputs),
            seconds=0.0,
            reused=False,
            reason="",
        )
        self.entries.append(entry)
        return entry


def inputs_of(config: RunConfig, digest: str | None = None) -> dict[str, Mapping[str, Any]]:
    """The inputs of every stage but the report's, by name."""
    job = Job(config=config, digest=digest, machine=MACHINE)
    ledger = Recorder(Path("out"))
    files = flow._files(job, ledger)
    engines, _ = flow._engines(job, ledger, files)
    for precision, entry in files.items():
        ledger.run_stage(stages.parity_stage(job, files["fp32"], entry, precision))
    for precision, built in engines:
        ledger.run_stage(stages.engine_parity_stage(job, files["fp32"], built, precision))
    flow._bench(job, ledger, files, [entry for _, entry in engines])
    return {entry.stage: entry.inputs for entry in ledger.entries}


def test_every_key_of_the_config_is_looked_at() -> None:
    assert {*OTHERS} | FILES | {*NO_STAGE} == {*keys_of(RunConfig)}
    assert not {*OTHERS} & {*NO_STAGE}


@pytest.mark.parametrize("key", OTHERS)
def test_a_changed_key_reaches_a_stage(key: str) -> None:
    if key == "convert.io":  # fp16 does not go with bf16
        two = {**CONFIG, "precisions": ["fp32", "fp16"]}
        configs = [RunConfig.model_validate({**two, "convert": {"io": io}}) for io in ("fp32", "fp16")]
        assert inputs_of(configs[0]) != inputs_of(configs[1])
        return
    assert inputs_of(config_with(key, OTHERS[key])) != inputs_of(config_with())


def test_a_key_that_is_said_to_reach_no_stage_reaches_none() -> None:
    others = {"out": "elsewhere", "gate.latency": {"baseline": "bench.json"}, "gate.require_engines": True}
    assert {*others} == {*NO_STAGE}
    for key, value in others.items():
        assert inputs_of(config_with(key, value)) == inputs_of(config_with())


def test_the_content_of_a_file_counts_and_its_place_does_not(tmp_path: Path) -> None:
    one, other, copy = (tmp_path / name for name in ("one.npz", "other.npz", "copy.npz"))
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    shutil.copy(one, copy)
    first, second, third = (inputs_of(config_with("parity.feeds", str(path))) for path in (one, other, copy))
    assert first == third
    assert next(name for name in first if first[name] != second[name]) == "convert-fp16"
    assert inputs_of(config_with(), "a hash") != inputs_of(config_with(), "another")


def test_a_key_touches_only_what_it_is_about() -> None:
    before = inputs_of(config_with())
    after = inputs_of(config_with("bench.repeats", 1))
    assert [name for name in before if before[name] != after[name]] == ["bench"]
    after = inputs_of(config_with("gate.bf16.iou", 0.5))
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["parity-bf16", "parity-tensorrt-bf16", "parity-rtx-bf16"]


@pytest.mark.parametrize("package", [name for engine in ENGINES.values() for name in engine.packages])
def test_an_upgrade_of_an_engine_builds_again(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its names the engine is installed under."""

    def inputs_with(version: str) -> dict[str, Mapping[str, Any]]:
        def distributions(name: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(version=version)] if name == package else []

        with monkeypatch.context() as patch:
            patch.setattr("importlib.metadata.distributions", distributions)
            return inputs_of(config_with())

    before, after = inputs_with("11.0"), inputs_with("11.1")
    (flavour,) = (name for name, engine in ENGINES.items() if package in engine.packages)
    changed = {name for name in before if before[name] != after[name]}
    built = {f"engine-{flavour}-{precision}" for precision in ("fp32", "fp16", "bf16")}
    assert changed >= built | {"bench"}
    assert {name for name in changed if name.startswith("engine-")} == built


def test_an_upgrade_of_an_engine_that_no_package_declares_builds_again() -> None:
    job = Job(config=config_with(), digest=None, machine=MACHINE)
    nothing = Stage(name="convert-fp16", inputs={}, result=StageResult, make=lambda: StageOutput(result=StageResult()))
    typed = Recorder(Path("out")).run_stage(nothing)
    stage = stages.engine_stage(job, typed, "tensorrt", "fp16", Path("out"))
    assert stage.inputs["version"] == "11.4.0"


# The code


def test_every_file_of_the_package_is_code() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in package_files(PACKAGE)}
    every = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.*") if "__pycache__" not in path.parts}
    assert names == every
    assert {"core/artifact.py", "models/sam_toy.safetensors"} <= names
    assert {Path(name).suffix for name in names} >= {".py", ".json", ".safetensors", ".html"}


def test_a_change_anywhere_in_the_code_is_another_hash(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))
    reference = package_hash(PACKAGE)
    assert package_hash(copy) == reference
    for path in package_files(copy):
        if path.suffix == ".py" and path.parent.name != "core":
            continue
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert package_hash(copy) != reference, path
        path.write_bytes(content)
    shutil.move(copy / "core" / "log.py", copy / "models" / "log.py")
    assert package_hash(copy) != reference, "the place counts too"
