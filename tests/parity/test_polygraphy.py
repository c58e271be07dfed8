"""Polygraphy's own command takes what is written here, and what it writes is judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Export
from polygraphy.comparator import RunResults
from polygraphy.json import load_json, save_json

from samdec_export import api
from samdec_export.core.errors import DependencyError, UsageError, ValidationError
from samdec_export.parity.record import Recorded, write_polygraphy


@pytest.fixture(scope="module")
def recorded(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return api.record(export().artifact.path, out=tmp_path_factory.mktemp("golden") / "tiny.npz")


@pytest.fixture(scope="module")
def files(recorded: Recorded) -> tuple[Path, Path]:
    """The golden's inputs and answers as Polygraphy's files."""
    inputs, outputs = recorded.path.with_name("inputs.json"), recorded.path.with_name("outputs.json")
    write_polygraphy(recorded, inputs, outputs)
    return inputs, outputs


def polygraphy(*words: str | Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from polygraphy.tools import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "run", *map(str, words)], capture_output=True, text=True, check=False
    )


def perturbed(path: Path, target: Path) -> Path:
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    onnx.save(model, target)
    return target


def test_polygraphy_passes_on_our_files(export: Export, files: tuple[Path, Path], tmp_path: Path) -> None:
    inputs, outputs = files
    words = ("--onnxrt", "--load-inputs", inputs, "--load-outputs", outputs)
    done = polygraphy(export().artifact.path, *words)
    assert done.returncode == 0, done.stdout
    assert "Passed: 25/25 iterations" in done.stdout
    assert polygraphy(perturbed(export().artifact.path, tmp_path / "broken.onnx"), *words).returncode != 0


def test_what_polygraphy_wrote_is_judged(export: Export, recorded: Recorded, tmp_path: Path) -> None:
    path, inputs, outputs = export().artifact.path, tmp_path / "in.json", tmp_path / "out.json"
    done = polygraphy(path, "--onnxrt", "--iterations", "2", "--save-inputs", inputs, "--save-outputs", outputs)
    assert done.returncode == 0, done.stdout
    validated = api.validate(path, feeds=inputs, outputs=outputs)
    assert validated.result.passed
    assert [case.case for case in validated.result.cases] == ["iteration 0", "iteration 1"]
    assert validated.result.candidate.startswith("onnxrt-runner")
    assert "itself was not run" in validated.notes[0]
    stored = api.record(path, feeds=inputs, out=tmp_path / "g.npz")
    assert api.validate(path, golden=stored.path, outputs=outputs, case="iteration 1").result.passed
    with pytest.raises(UsageError, match=r"holds 2 iterations of onnxrt.*, and there are 25 cases"):
        api.validate(path, golden=recorded.path, outputs=outputs)


def test_wrong_answers_from_elsewhere_fail(
    export: Export, recorded: Recorded, files: tuple[Path, Path], tmp_path: Path
) -> None:
    results = RunResults.load(str(files[1]))
    ((_, iterations),) = results.items()
    assert api.validate(export().artifact.path, golden=recorded.path, outputs=files[1]).result.passed
    for number, iteration in enumerate(iterations):
        iteration["masks"] = iteration["masks"] * np.float32(1 + 1e-3 * (number == 5))
    results.save(str(tmp_path / "wrong.json"))
    validated = api.validate(export().artifact.path, golden=recorded.path, outputs=tmp_path / "wrong.json")
    assert [case.passed for case in validated.result.cases] == [number != 5 for number in range(25)]
    with pytest.raises(ValidationError, match="masks relative error") as caught:
        validated.require()
    assert f"--outputs {tmp_path / 'wrong.json'} --golden {recorded.path} --case" in caught.value.advice


def test_a_folder_of_iterations_is_read(
    export: Export, recorded: Recorded, files: tuple[Path, Path], tmp_path: Path
) -> None:
    for kind in ("in", "out"):
        (tmp_path / kind).mkdir()
    for number, feeds in enumerate(load_json(str(files[0]))):
        save_json(feeds, str(tmp_path / "in" / f"{number:010}.json"))
    for number, single in enumerate(RunResults.load(str(files[1])).split()):
        single.save(str(tmp_path / "out" / f"{number:010}.json"))
    validated = api.validate(export().artifact.path, feeds=tmp_path / "in", outputs=tmp_path / "out")
    assert len(validated.result.cases) == 25
    assert validated.result.passed


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[1]", '{"lst": 3}', '{"polygraphy_class": "ndarray", "array": "x"}']
)
def test_what_is_not_polygraphys_is_told(
    export: Export, recorded: Recorded, tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UsageError, match=r"bad\.json"):
        api.validate(export().artifact.path, feeds=tmp_path / "bad.json")
    with pytest.raises(UsageError, match=r"bad\.json"):
        api.validate(export().artifact.path, golden=recorded.path, outputs=tmp_path / "bad.json")
    assert capfd.readouterr() == ("", ""), "Polygraphy prints nothing of its own"


def test_two_cases_alike_are_refused(export: Export, files: tuple[Path, Path], tmp_path: Path) -> None:
    (first, *_) = load_json(str(files[0]))
    save_json([first, first], str(tmp_path / "twice.json"))
    with pytest.raises(UsageError, match="Two cases have the same inputs"):
        api.validate(export().artifact.path, feeds=tmp_path / "twice.json", outputs=files[1])


def test_polygraphy_may_be_missing(
    export: Export, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "polygraphy":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match="Polygraphy, which is not installed") as caught:
        write_polygraphy(recorded, tmp_path / "in.json", None)
    assert "samdec-export[polygraphy]" in caught.value.advice
    assert not [*tmp_path.iterdir()]
