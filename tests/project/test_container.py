"""The Dockerfile without Docker: its steps are sound, what is copied is let through, and the wheel holds everything."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from samdec_export import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", "").splitlines()
RUNS = [line.removeprefix("RUN ") for line in INSTRUCTIONS if line.startswith("RUN ")]
COPIED = ("pyproject.toml", "README.md", "constraints.txt", "samdec_export")


def tool(name: str, *words: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that the dev extra brings."""
    path = Path(sys.executable).with_name(name)
    return subprocess.run([path, *words], input=text, capture_output=True, text=True, check=False)


def arguments(word: str) -> list[str]:
    """The rest of every line that starts with an instruction."""
    return [line.removeprefix(f"{word} ") for line in INSTRUCTIONS if line.startswith(f"{word} ")]


def test_hadolint_has_nothing_to_say() -> None:
    assert tool("hadolint", ROOT / "Dockerfile").stdout == ""
    assert "hadolint ignore" not in DOCKERFILE
    bad = tool("hadolint", "-", text="FROM python\nRUN cd /tmp && pip install x\n")
    assert {"DL3003", "DL3006", "DL3013"} <= set(re.findall(r"DL\d+", bad.stdout))


@pytest.mark.parametrize("line", RUNS)
def test_every_step_is_sound_shell(line: str) -> None:
    done = tool("shellcheck", "--shell", "sh", "--exclude", "SC2154", "-", text=f"{line}\n")  # ARGs are set elsewhere
    assert done.stdout == ""


def test_the_user_is_a_number_and_the_entry_point_exists() -> None:
    assert arguments("USER") == ["65532:65532"]
    assert arguments("ENTRYPOINT") == ['["samdec-export"]']
    assert 'samdec-export = "samdec_export.cli.app:main"' in (ROOT / "pyproject.toml").read_text()


def test_both_targets_are_the_runtime_with_an_environment() -> None:
    stages = dict(re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)[i][::-1] for i in range(7))
    assert (stages["cpu"], stages["gpu"]) == ("runtime", "runtime")
    assert {base for base in stages.values() if base not in stages} == {"${PYTHON_IMAGE}"}
    assert [*stages][-1] == "cpu", "a build without --target makes the last one"


def test_every_image_is_pinned_by_an_argument() -> None:
    (image,) = [argument for argument in arguments("ARG") if argument.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", image)


def test_extras_are_those_of_the_project() -> None:
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    asked = [argument.removeprefix("EXTRAS=").split(",") for argument in arguments("ARG") if "EXTRAS=" in argument]
    assert [extras[0] for extras in asked] == ["cpu", "gpu"]
    assert {"rtx"} <= set(asked[0]) <= declared
    assert set(asked[1]) <= declared
    assert not {"cpu", "gpu"} <= set(asked[0]), "the two ONNX Runtimes overwrite each other"


INSTALLS = [line for line in RUNS if "pip install" in line]


@pytest.mark.parametrize("line", INSTALLS)
def test_an_install_asks_one_index_for_exact_versions(line: str) -> None:
    words = line.split()
    assert words.count("--index-url") == 1
    assert not {"--extra-index-url", "--find-links", "--trusted-host"} & {*words}
    assert "/constraints.txt" in words or all("==" in word for word in words if word.startswith('"tensorrt'))
    from_public = "${PACKAGE_INDEX}" in line
    assert from_public or "--no-deps" in words, "an index of one maker gives what is named and nothing else"


def test_nothing_is_built_with_what_is_not_pinned() -> None:
    (tools,) = (line for line in INSTALLS if "hatchling" in line)
    assert "--only-binary :all:" in tools
    assert "--constraint" in tools
    building = [line for line in RUNS if "/wheels" in line and "pip" in line]
    assert len(building) == 3
    assert all("--no-build-isolation" in line for line in building), "else pip fetches the newest build tools"
    assert "NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP=1" in arguments("ENV"), "else TensorRT's setup asks its own index"


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[tuple[str, str]]:
    """Yield every distribution that one needs here, itself included, with its version."""
    if (canonicalize_name(name), extras) in seen:
        return
    seen.add((canonicalize_name(name), extras))
    found = importlib.metadata.distribution(name)
    yield canonicalize_name(name), found.version
    for text in found.requires or ():
        other = Requirement(text)
        if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield from needed(other.name, frozenset(other.extras), seen)


def test_every_package_that_the_cpu_image_gets_is_pinned() -> None:
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in map(Requirement, lines)}
    (extras,) = (text.removeprefix("EXTRAS=") for text in arguments("ARG") if text.startswith("EXTRAS=cpu"))
    wanted = dict(needed("samdec-export", frozenset(extras.split(",")), set()))
    del wanted["samdec-export"]
    assert len(wanted) > 40
    assert {name: f"=={version.partition('+')[0]}" for name, version in wanted.items()}.items() <= pins.items()
    assert {"hatchling", "packaging", "pathspec", "pluggy", "setuptools", "tomlkit", "trove-classifiers"} <= pins.keys()


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    sources = {word for line in arguments("COPY") if "--from" not in line for word in line.split()[:-1]}
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources == set(COPIED)


def test_the_wheel_step_makes_a_wheel_that_holds_everything(tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    for name in COPIED:  # what the builder sees, and nothing else
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    (step,) = (line for line in RUNS if "pip wheel" in line)
    assert step.startswith("python -m pip ")
    assert "/wheels" in step
    command = step.replace("python", sys.executable, 1).replace("/wheels", str(wheels))
    command = command.replace("--no-build-isolation", "")  # the image has hatchling, this environment may not
    done = subprocess.run(["sh", "-c", command], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.iterdir()
    assert wheel.name == f"samdec_export-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if name.startswith("samdec_export/")}
    package = ROOT / "samdec_export"
    present = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    assert packed == {name for name in present if "__pycache__" not in name}
    assert {"samdec_export/py.typed", "samdec_export/serving/templates/README.md"} <= packed


def test_the_folder_step_makes_a_folder_of_that_user(tmp_path: Path) -> None:
    (step,) = (line for line in RUNS if line.startswith("install "))
    done = subprocess.run(["sh", "-c", step.replace("/work", f"{tmp_path}/work")], capture_output=True, check=False)
    made = tmp_path / "work"
    if done.returncode:  # only root may give a folder away
        assert b"not permitted" in done.stderr
    else:
        assert (made.stat().st_uid, made.stat().st_gid) == (65532, 65532)
