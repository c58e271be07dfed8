"""The README's commands run, and its tables are what the code says."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import call

from samdec_export.core import errors
from samdec_export.core.options import GRAPHS, MASKS
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.decoder import SamDecoder, seed_weights
from samdec_export.parity.tolerances import TOLERANCES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ samdec-export (.*)$", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a checkpoint that is told for a ViT-B's, while `sam_b` is a model of sam_tiny's sizes.

    The README's commands, names and files stay as they are; test_fullsize runs the first of them on a real ViT-B's
    decoder, and test_build_matrix `onnx`, `convert` and `trt`.
    """
    spec = replace(MODELS["sam_b"], architecture=MODELS["sam_tiny"].architecture)
    model = SamDecoder(spec.architecture)
    with torch.no_grad():
        seed_weights(model, 0)
    assert spec.encoder is not None
    torch.save({**model.state_dict(), spec.encoder.key: torch.zeros(spec.encoder.shape)}, tmp_path / "sam_b.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "sam_b", spec)
        yield tmp_path


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 4
    assert COMMANDS[0] == "onnx --ckpt sam_b.pt"


def test_the_readmes_commands_work_in_their_order(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        code, _, err = call(capsys, *shlex.split(command))
        assert code == 0, (command, err)


def test_the_first_screen_names_the_two_scripts() -> None:
    assert re.findall(r"^    scripts/(\w+)", README, re.MULTILINE) == ["demo", "test"]


def test_every_choice_is_documented() -> None:
    contracts = (ROOT / "docs" / "contracts.md").read_text()
    assert all(f"`{graph}`" in README and f"`{graph}`" in contracts for graph in GRAPHS)
    assert f"`--masks {'|'.join(MASKS)}`" in README


def test_every_exit_code_is_documented() -> None:
    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.SamdecError) and error is not errors.SamdecError
    }
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert table == codes | {0, 1, 130, 141}


def test_the_tolerance_table_is_the_code() -> None:
    numerics = (ROOT / "docs" / "numerics.md").read_text()
    for precision, limit in TOLERANCES.items():
        row = f"| {precision} | {limit.logits:.0e} | {limit.iou:g} | {limit.flipped:.0e} | {limit.best_mask:g} |"
        assert row.replace("e-0", "e-") in numerics


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name)
def test_files_and_modules_are_called_what_they_are(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        return  # it speaks of what was
    text = path.read_text()
    for name in re.findall(r"`([\w.-]+/[\w./-]+\.py)`", text):
        assert any((root / name).is_file() for root in (ROOT, ROOT / "samdec_export", ROOT / "tests")), name
    for module in re.findall(r"from (samdec_export[\w.]*) import", text):
        assert importlib.util.find_spec(module), module


def test_every_test_that_the_threats_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "threats.md").read_text()))
    sources = (path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    there = {name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert named
    assert named <= there, named - there
