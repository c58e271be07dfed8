"""The config of a run: what it takes, what it says to a mistake, and the files that are committed."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from command_line import call, is_one_clear_line

from samdec_export.core.dtypes import PRECISIONS
from samdec_export.core.errors import UsageError
from samdec_export.models.registry import MODELS
from samdec_export.parity.tolerances import TOLERANCES
from samdec_export.run.config import THRESHOLDS, RunConfig
from samdec_export.run.config_file import as_yaml, command_for, config_schema, load_config, parse_setting

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_config_that_editors_accept(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    usual = RunConfig(model=name)
    assert load_config(path) in (usual, usual.model_copy(update={"graph": "prompts"}))
    jsonschema.validate(yaml.safe_load(text), config_schema())
    assert len(text.splitlines()) < 10


def test_there_is_no_config_without_a_model() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*MODELS}


def test_the_committed_schema_is_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    again = "samdec-export config schema > configs/schema.json"
    text = json.dumps(config_schema(), indent=2) + "\n"
    assert (CONFIGS / "schema.json").read_text() == text, again
    for words in (("config", "schema"), ("run", "--schema")):
        assert call(capsys, *words)[:2] == (0, text)


def test_the_schema_refuses_what_the_code_refuses() -> None:
    validator = jsonschema.Draft202012Validator(config_schema())
    assert validator.is_valid({"gate": {"fp16": {"iou": 0.95}}, "engines": {"build": ["rtx"]}})
    for wrong in (
        {"gate": {"fp16": {"iuo": 0.95}}},
        {"gate": {"fp16": {"iou": 2}}},
        {"graph": "decode"},
        {"opset": 16},
    ):
        assert not validator.is_valid(wrong)
        with pytest.raises(ValueError, match="validation error"):
            RunConfig.model_validate(wrong)


def test_keys_land_where_the_stages_look(tmp_path: Path) -> None:
    text = """
        model: vit_b
        graph: prompts
        ranges: {prompts: [1, 8, 16]}
        precisions: [fp16]
        engines: {build: [tensorrt], targets: [sm89, sm86], hardware_compat: true}
        gate:
          fp16: {iou: 0.95, logits: 1e-3, iou_predictions: 2.0e-3}
          bf16:
    """
    config = load_config(written(tmp_path, text))
    assert config.model == "sam_b"
    assert config.graph_options.ranges[0].max == 16
    limits = config.gate.tolerance("fp16")
    assert (limits.iou, limits.logits, limits.iou_predictions) == (0.95, 1e-3, 2e-3)
    assert limits.flipped == TOLERANCES["fp16"].flipped
    assert config.gate.tolerance("bf16") == TOLERANCES["bf16"]
    assert config.engines.options("rtx").targets == ("sm86", "sm89")
    assert config.engines.options("tensorrt").targets == ()
    assert not config.engines.options("rtx").hardware_compat


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "gate: {fp16: {iou: 0.9}}\nbench: {prompts: [4]}")
    given = [parse_setting(text) for text in ("gate.fp16.iou=0.95", "bench.points=[2, 3]", "engines.build=[]")]
    config = load_config(path, given)
    assert config.gate.fp16.iou == 0.95
    assert (config.bench.prompts, config.bench.points, config.engines.build) == ((4,), (2, 3), ())
    words = command_for(path, given)
    assert words.startswith(f"samdec-export run {path} --set gate.fp16.iou=0.95 --set ")


def test_a_shown_config_reads_back_as_the_same_limits(tmp_path: Path) -> None:
    shown = load_config(written(tmp_path, as_yaml(RunConfig(model="sam_b"))))
    assert shown.model_dump(exclude={"gate"}) == RunConfig(model="sam_b").model_dump(exclude={"gate"})
    for precision in PRECISIONS:
        assert shown.gate.limits(precision) == RunConfig().gate.limits(precision)


MISTAKES = {
    "modle: sam_b": "modle is not a known key. Did you mean model?",
    "gate: {fp16: {iuo: 0.9}}": "gate.fp16.iuo is not a known key. Did you mean iou?",
    "xyz: 1": "xyz is not a known key. Known here: model, checkpoint",
    "model: sam_bb": "model: 'sam_bb' is not a model. Did you mean sam_b?",
    "gate: {fp16: {iou: high}}": "gate.fp16.iou: 'high' is not a number.",
    "gate: {fp16: {iou: 1.5}}": "gate.fp16.iou: 1.5 is not a number up to 1.",
    "gate: {fp16: {logits: 0}}": "gate.fp16.logits: 0 is not a number above 0.",
    "gate: {latency: {ratio: 2}}": "gate.latency.baseline is missing.",
    "graph: decode": "graph: 'decode' is not one of 'decoder', 'prompts' or 'meta'.",
    "engines: {build: [trt]}": "engines.build[0]: 'trt' is not one of 'tensorrt' or 'rtx'.",
    "engines: {profiles: [{batch: [3, 1, 2]}]}": "engines.profiles[0].batch: [3, 1, 2] is not [min, usual, max]",
    "bench: {prompts: [1, 0]}": "bench.prompts[1]: 0 is not a number from 1 on.",
    "bench: {prompts: []}": "bench.prompts: [] is not a list of at least one.",
    "bench: 3": "bench: 3 is not a mapping of keys to values.",
    "bench: {enabled: maybe}": "bench.enabled: 'maybe' is not true or false.",
    "opset: 17.5": "opset: 17.5 is not a whole number.",
    "mask_input: true": "mask_input is a choice of the prompts graph",
    "precisions: []": "precisions is empty",
    "precisions: [fp16, fp16]": "precisions: ['fp16', 'fp16'] names something twice.",
    "precisions: [bf16]\nconvert: {io: fp16}": "convert.io: fp16 does not go with a graph in bf16.",
    "precisions: [fp16]\nengines: {precisions: [bf16]}": "engines.precisions has bf16, which precisions has not.",
    "gate: {latency: {baseline: x.json}}\nbench: {enabled: false}": "gate.latency needs the benchmark",
    "bogus: 1\nbench: {reps: 1}": "(1 more mistake.)",
    "a: 1\na: 2": "line 2: a is there twice.",
    "a: [": "line 1: ",
    "1: 2": "line 1: a key that is not text.",
    "? [a, b]\n: 3": "line 1: a key that is not text.",
    "- 1": "is not a mapping of keys to values.",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, out, err = call(capsys, "run", written(tmp_path, text), "--out", tmp_path / "out")
    assert (code, out, is_one_clear_line(err)) == (2, "", True)
    assert MISTAKES[text] in err
    assert f"{tmp_path / 'c.yaml'}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gate.fp16.iuo=1", "gate.fp16.iuo is not a known key. Did you mean iou?"),
        ("gate.fp16.iou", "is not KEY=VALUE"),
        ("=1", "is not KEY=VALUE"),
        ("model.x=1", "model holds no keys"),
        ("gate.fp16.iou=[", "is not KEY=VALUE"),
    ],
)
def test_a_mistake_in_a_flag_names_the_flag_and_not_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    code, _, err = call(capsys, "run", written(tmp_path, "model: sam_tiny"), "--set", setting)
    assert (code, is_one_clear_line(err)) == (2, True)
    assert message in err
    assert "c.yaml" not in err


def test_files_that_are_no_config(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\x00\xff")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(UsageError, match=path.name):
            load_config(path)


def test_the_documented_limits_are_the_codes() -> None:
    text = (ROOT / "docs" / "run.md").read_text()
    for key in THRESHOLDS:
        values = [RunConfig().gate.limits(precision)[key] for precision in PRECISIONS]
        row = f"| `{key}` | {' | '.join(f'{value:g}' for value in values)} |"
        assert row in text, row
