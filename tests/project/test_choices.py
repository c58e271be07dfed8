"""Every choice of a user's is declared once, and every surface spells it as its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from choices import CHOICES, PACKAGE, declarations
from command_line import call, is_one_clear_line

from samdec_export import api
from samdec_export.backends.tensorrt.options import OF_ONE_ENGINE, EngineOptions
from samdec_export.core.artifact import Record
from samdec_export.core.choices import choices_of, options_of
from samdec_export.core.errors import SamdecError, UsageError
from samdec_export.core.options import ExportOptions
from samdec_export.core.packages import ENGINES
from samdec_export.core.signature import Dim
from samdec_export.core.spelling import as_argument, as_flag, command_line, spelled
from samdec_export.parity.options import SweepOptions
from samdec_export.run.config import RunConfig, key_of

OPTIONS = (api.BenchOptions, api.BuildOptions, api.CaseOptions, api.GraphOptions, api.ServingOptions, ExportOptions)

OTHER_PROGRAMS = (
    "backend-config",
    "force-reinstall",
    "load-inputs",
    "load-outputs",
    "save-inputs",
    "save-outputs",
    "save",
)
"""Flags of Polygraphy, of pip and of Triton."""

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])")


def flags_in(path: Path) -> Iterator[str]:
    """Every flag of this project that a text of a file holds."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (name for name in FLAG.findall(node.value) if name not in OTHER_PROGRAMS)


BELOW = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli" and path.name != "client.py"]


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_command_line_knows_flags(path: Path) -> None:
    assert not [*flags_in(path)]


def test_a_flag_in_a_text_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('X = f"Leave out --io {1}."\nY = "--ckpt"\nZ = "polygraphy run --load-inputs x"\n')
    assert {*flags_in(tmp_path / "a.py")} == {"io", "ckpt"}


def test_each_choice_is_declared_once() -> None:
    assert {name: len(places) for name, places in declarations(PACKAGE).items()} == dict.fromkeys(CHOICES, 1)


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("cli/x.py", "def f(margin: Annotated[float, typer.Option(help='How far.')] = None): ...", "margin"),
        ("cli/x.py", "def f(far: Annotated[float, typer.Option('--max-flips')] = 0.1): ...", "max_flips"),
        ("cli/x.py", "Ckpt = Annotated[str, typer.Option('--ckpt')]", "checkpoint"),
        ("cli/x.py", "def f(opset: int = 20): ...", "opset"),
        ("api/x.py", "def f(*, threads: int = 2): ...", "threads"),
        ("run/config.py", "class A:\n    margin: float = 4.0", "margin"),
        ("run/config.py", "class A:\n    workspace: Annotated[int, Field(ge=1)]", "workspace"),
        ("parity/options.py", "class A:\n    seed: Annotated[int, Help('Seed.')]", "seed"),
    ],
)
def test_a_second_declaration_is_found(tmp_path: Path, file: str, text: str, name: str) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    assert {choice for choice, places in declarations(tmp_path).items() if places} == {name}


def test_what_is_derived_is_no_declaration(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    text = "def f(sweep: Annotated[X, flag(CaseOptions, 'sweep')] = CaseOptions.sweep, seed: int | None = None): ..."
    (tmp_path / "cli" / "x.py").write_text(text)
    assert not any(declarations(tmp_path).values())


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("", ExportOptions),
        ("", api.GraphOptions),
        ("convert", api.ConvertOptions),
        ("engines", EngineOptions),
        ("bench", api.BenchOptions),
        ("parity", SweepOptions),
    ],
)
def test_a_config_has_every_choice_with_its_default(section: str, options: Any) -> None:
    values = getattr(RunConfig(), section) if section else RunConfig()
    for name, choice in choices_of(options).items():
        assert getattr(values, name) == choice.default
        description = RunConfig.model_json_schema()
        shown = description["$defs"][type(values).__name__] if section else description
        assert shown["properties"][name]["description"].startswith(spelled(choice.help.text, as_argument)[:-1])


def test_every_key_reaches_its_stage() -> None:
    """Each key of a section with another value than the usual one, seen in what the stage takes."""
    given = {
        "convert": {"io": "fp16", "keep_fp32": ["Softmax"], "max_flips": 0.5, "margin": 2.0, "protect": False},
        "engines": {
            "targets": ["sm89"],
            "profiles": [{"batch": [1, 2, 3]}],
            "workspace": 7,
            "opt_level": 1,
            "timing_cache": "x",
            "hardware_compat": True,
            "version_compat": True,
            "strip_weights": True,
            "refit": True,
            "tf32": True,
        },
        "bench": {"images": [2], "prompts": [3], "points": [4], "threads": 5, "repeats": 6},
    }
    graph = {
        "graph": "prompts",
        "masks": "all",
        "mask_input": True,
        "dynamic_grid": True,
        "arrangement": "reference",
        "ranges": {"prompts": [1, 2, 3]},
        "opset": 18,
    }
    config = RunConfig.model_validate({**given, **graph})
    usual = RunConfig()
    assert all(getattr(config.graph_options, name) != getattr(usual.graph_options, name) for name in graph)
    assert {*graph} == {field.name for field in fields(api.GraphOptions)}
    for name in given["convert"]:
        assert getattr(config.convert.options("fp16"), name) != getattr(usual.convert.options("fp16"), name)
    assert {*given["convert"]} == {*choices_of(api.ConvertOptions)} - {"all_matmuls"}
    assert RunConfig.model_validate({"convert": {"all_matmuls": True}}).convert.options("fp16").all_matmuls
    for name in given["engines"]:
        engine = OF_ONE_ENGINE.get(name, "rtx")
        assert getattr(config.engines.options(engine), name) != getattr(usual.engines.options(engine), name)
        for wrong in [other for other in ENGINES if other != engine] if name in OF_ONE_ENGINE else []:
            assert getattr(config.engines.options(wrong), name) == getattr(usual.engines.options(wrong), name)
    assert {*given["engines"]} == {*choices_of(EngineOptions)}
    for name in given["bench"]:
        assert getattr(config.bench.options, name) != getattr(usual.bench.options, name)
    assert {*given["bench"]} == {*choices_of(api.BenchOptions)}
    assert config.graph_options.ranges == (Dim(name="prompts", min=1, opt=2, max=3),)


@pytest.mark.parametrize(
    ("text", "argument", "flag", "key"),
    [
        ("{max_flips}", "max_flips", "--max-flips", "convert.max_flips"),
        ("{graph=prompts}", "graph='prompts'", "--graph prompts", "graph: prompts"),
        ("{protect=False}", "protect=False", "--no-protect", "convert.protect: false"),
        ("{precision=fp16}", "precision='fp16'", "--fp16", "precisions: [fp16]"),
        ("{checkpoint}", "checkpoint", "--ckpt", "checkpoint"),
        ("{ranges}, {profiles}", "ranges, profiles", "--range, --profile", "ranges, engines.profiles"),
        ("{rehash}", "rehash", "--rehash", "{rehash}"),
        ("{'a': 1} {} {A}", "{'a': 1} {} {A}", "{'a': 1} {} {A}", "{'a': 1} {} {A}"),
    ],
)
def test_each_surface_spells_a_choice(text: str, argument: str, flag: str, key: str) -> None:
    assert [spelled(text, way) for way in (as_argument, as_flag, key_of)] == [argument, flag, key]


def test_an_error_is_told_as_each_surface_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    contradiction = {"all_matmuls": True, "max_flips": 0.1}
    with pytest.raises(UsageError, match=r"^max_flips finds matmuls to keep in fp32, and all_matmuls keeps none"):
        api.Conversion(precision="fp16", all_matmuls=True, max_flips=0.1)
    with pytest.raises(UsageError, match=r"^convert\.max_flips finds matmuls .* and convert\.all_matmuls keeps"):
        api.config(settings={f"convert.{name}": value for name, value in contradiction.items()})
    code, _, err = call(capsys, "convert", "x.onnx", "--fp16", "--all-matmuls", "--max-flips", "0.1")
    assert (code, is_one_clear_line(err)) == (2, True)
    assert "--max-flips finds matmuls to keep in fp32, and --all-matmuls keeps none." in err
    with pytest.raises(SamdecError, match=r"Give its file as checkpoint;"):
        api.run(settings={"model": "sam_b", "out": tmp_path / "out"})


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (api.BenchOptions, {"threads": 0}, "threads 0 is below 1. Threads of each candidate."),
        (api.BenchOptions, {"prompts": (1, 0)}, "prompts 0 is below 1."),
        (api.BenchOptions, {"prompts": ()}, "prompts is empty."),
        (api.BuildOptions, {"opt_level": 6}, "opt_level 6 is above 5."),
        (api.CaseOptions, {"seed": -1}, "seed -1 is below 0."),
        (api.GraphOptions, {"opset": 16}, "opset 16 is below 17."),
        (api.Conversion, {"precision": "fp16", "max_flips": 1}, "max_flips 1 is not below 1."),
        (api.Conversion, {"precision": "fp16", "margin": float("nan")}, "margin nan is not a finite number."),
        (api.ServingOptions, {"queue_delay": -1}, "queue_delay -1 is below 0."),
    ],
)
def test_bounds_hold_in_python(options: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        options(**values)


def test_former_names_are_still_taken(capsys: pytest.CaptureFixture[str], export: Any) -> None:
    assert api.config(settings={"convert.all_products": True}).convert.all_matmuls
    code, _, err = call(capsys, "convert", "x.onnx", "--fp16", "--all-products", "--max-flips", "0.1")
    assert (code, "--all-matmuls keeps none" in err) == (2, True)
    assert "all-products" not in call(capsys, "convert", "--help")[1]
    record = export().artifact.record.to_json()
    older = {**record, "conversion": {"keep": ["Softmax"], "all_products": True}}
    assert Record.from_json(older).conversion == {"keep_fp32": ["Softmax"], "all_matmuls": True}


def test_every_option_has_a_flag_and_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    helps = {command: call(capsys, *command.split(), "--help")[1] for command in ("onnx", "convert", "trt", "bench")}
    helps["bundle"] = call(capsys, "bundle", "triton", "--help")[1]
    shown = {
        "onnx": api.GraphOptions,
        "convert": api.ConvertOptions,
        "trt": api.BuildOptions,
        "bench": api.BenchOptions,
    }
    for command, options in {**shown, "bundle": api.ServingOptions}.items():
        for choice in choices_of(options).values():
            assert f"{as_flag(choice.name)} " in helps[command]
            assert spelled(choice.help.text, as_flag).removesuffix(".")[:20] in helps[command]
    for options in OPTIONS:
        assert {*choices_of(options)} == {field.name for field in fields(options)}


def test_a_command_line_is_quoted() -> None:
    assert command_line("validate", Path("a b"), seed=0, checkpoint=None, case="x y") == (
        "samdec-export validate 'a b' --seed 0 --case 'x y'"
    )


def test_options_are_taken_from_what_has_the_same_choices() -> None:
    made = options_of(api.Conversion, api.ConvertOptions(margin=8.0), precision="bf16")
    assert (made.margin, made.precision, made.io) == (8.0, "bf16", "fp32")
