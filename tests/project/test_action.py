"""The shell steps of the action and of the GitLab job, run against what a pull request could bring."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from test_ci_files import GITLAB_JOB, ROOT, SCRIPTS, STEPS

WRITES = 'while [ "$1" != --out ]; do shift; done; cd "$2"; echo "# Numbers" > report.md'
"""A run that writes its report."""

MARKER = "<!-- samdec-export: mine -->"
US = "github-actions[bot]"


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program that logs its words, each ended by a NUL, then runs `script`."""
    path = folder / "programs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" {name} "$@" >> {folder}/log\n{script}\n')
    path.chmod(0o755)


def words(folder: Path) -> list[str]:
    """Every word that the stand-ins were called with, in order."""
    return (folder / "log").read_text().split("\0")[:-1]


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub runs a step with `shell: bash`, in a folder that holds the pull request's files."""
    for name in ("checkout", "temp", "programs"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "step.sh").write_text(script)
    variables = {
        "PATH": f"{folder}/programs:{os.environ['PATH']}",
        "GITHUB_OUTPUT": f"{folder}/output",
        "GITHUB_STEP_SUMMARY": f"{folder}/summary",
        "GITHUB_REPOSITORY": "me/mine",
        "RUNNER_TEMP": f"{folder}/temp",
        **environment,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", f"{folder}/step.sh"]
    return subprocess.run(
        command, cwd=folder / "checkout", env=variables, capture_output=True, text=True, check=False, timeout=60
    )


def run(folder: Path, config: str = "configs/x.yaml", ckpt: str = "") -> dict[str, str]:
    """Run the action's run, and return its outputs."""
    (folder / "output").unlink(missing_ok=True)
    done = shell(SCRIPTS["Run"], folder, CONFIG=config, CKPT=ckpt)
    assert done.returncode == 0, done.stderr
    lines = (folder / "output").read_text().splitlines()
    outputs = dict(line.split("=", 1) for line in lines)
    assert [*outputs] == ["exit-code", "folder", "report"]
    assert len(lines) == 3, "no output is given twice"
    assert Path(outputs["folder"]).parent == folder / "temp"
    return outputs


def ends_with(folder: Path, code: str) -> int:
    return shell(SCRIPTS["Pass or fail"], folder, CODE=code).returncode


def nothing_is_posted(folder: Path, outputs: dict[str, str]) -> bool:
    stand_in(folder, "gh", "")
    before = (folder / "log").read_text() if (folder / "log").exists() else ""
    assert comment(folder, outputs["report"]).returncode == 0
    after = (folder / "log").read_text() if (folder / "log").exists() else ""
    return before == after and not (folder / "summary").exists() and outputs["report"] == ""


def comment(folder: Path, report: str | Path) -> subprocess.CompletedProcess[str]:
    script = SCRIPTS["Comment on the pull request"]
    return shell(script, folder, REPORT=str(report), NUMBER="5", MARKER=MARKER, AUTHOR=US, GH_TOKEN="-")


# The run


@pytest.mark.parametrize(("code", "ckpt"), [(0, ""), (7, "a b.pt"), (7, "--help")])
def test_a_run_reports_whether_the_gate_holds_or_not(code: int, ckpt: str, tmp_path: Path) -> None:
    stand_in(tmp_path, "samdec-export", f"{WRITES}; exit {code}")
    outputs = run(tmp_path, ckpt=ckpt)
    assert outputs["exit-code"] == str(code)
    assert outputs["report"] == f"{outputs['folder']}/report.md"
    given = ["samdec-export", "run", "--out", outputs["folder"], *([f"--ckpt={ckpt}"] if ckpt else [])]
    assert words(tmp_path) == [*given, "--", "configs/x.yaml"]
    assert (tmp_path / "summary").read_text() == "# Numbers\n"
    assert ends_with(tmp_path, str(code)) == code
    assert run(tmp_path)["folder"] != outputs["folder"], "each run has its own"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("GH_TOKEN=secret\n")
    return path


@pytest.mark.parametrize("brought", ["file", "link to a file", "link to a folder"])
@pytest.mark.parametrize("code", [0, 2, 7])
def test_a_report_that_the_pull_request_brought_is_not_posted(
    code: int, brought: str, tmp_path: Path, secret: Path
) -> None:
    planted = tmp_path / "checkout" / "samdec-report"
    planted.parent.mkdir()
    if brought == "link to a folder":
        secret.rename(secret.with_name("report.md"))
        planted.symlink_to(tmp_path)
    else:
        planted.mkdir()
        report = planted / "report.md"
        report.write_text("# Passed\n") if brought == "file" else report.symlink_to(secret)
    stand_in(tmp_path, "samdec-export", f"exit {code}")
    outputs = run(tmp_path)
    assert nothing_is_posted(tmp_path, outputs)
    assert ends_with(tmp_path, outputs["exit-code"]) == (code if code == 2 else 1), "a run without a report is red"


def test_links_in_the_runs_folder_are_neither_posted_nor_kept(tmp_path: Path, secret: Path) -> None:
    links = f"ln -s {secret} more.json; ln -s {tmp_path} folder; mkfifo pipe; mkdir inner; ln -s {secret} inner/x"
    stand_in(tmp_path, "samdec-export", f"{WRITES}; rm report.md; ln -s {secret} report.md; {links}; touch own")
    outputs = run(tmp_path)
    assert nothing_is_posted(tmp_path, outputs)
    assert outputs["exit-code"] == "1"
    left = {path.relative_to(outputs["folder"]).as_posix() for path in Path(outputs["folder"]).rglob("*")}
    assert left == {"own", "inner"}
    assert secret.exists(), "the link is removed, not what it leads to"


@pytest.mark.parametrize("code", [1, 2, 4, 130])
def test_a_run_that_broke_off_posts_no_report(code: int, tmp_path: Path) -> None:
    stand_in(tmp_path, "samdec-export", f"{WRITES}; exit {code}")
    outputs = run(tmp_path)
    assert nothing_is_posted(tmp_path, outputs)
    assert ends_with(tmp_path, outputs["exit-code"]) == code


@pytest.mark.parametrize("config", ["--help", "-x", "--schema", ""])
def test_a_config_that_looks_like_an_option_is_red(config: str, tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from samdec_export.cli.app import main; main()"
    stand_in(tmp_path, "samdec-export", f'exec {sys.executable} -c {shlex.quote(program)} "$@"')
    outputs = run(tmp_path, config)
    assert nothing_is_posted(tmp_path, outputs)
    assert ends_with(tmp_path, outputs["exit-code"]) == 2


@pytest.mark.parametrize(
    "config", ["a b.yaml", "a'b\"c.yaml", "$(touch hit).yaml", "`touch hit`", "a\nexit-code=0\nreport=/etc/passwd", "*"]
)
def test_a_config_of_any_name_is_one_word(config: str, tmp_path: Path) -> None:
    stand_in(tmp_path, "samdec-export", "exit 2")
    outputs = run(tmp_path, config, ckpt=config)
    assert words(tmp_path)[1:] == ["run", "--out", outputs["folder"], f"--ckpt={config}", "--", config]
    assert outputs["exit-code"] == "2"
    assert not [*(tmp_path / "checkout").iterdir()]


def test_what_a_run_prints_is_no_workflow_command(tmp_path: Path) -> None:
    stand_in(tmp_path, "samdec-export", "echo ::notice::Passed; printf ::error::no-newline; exit 2")
    stops = set()
    for _ in range(2):
        printed = shell(SCRIPTS["Run"], tmp_path, CONFIG="x", CKPT="").stdout.splitlines()
        stop = printed[0].removeprefix("::stop-commands::")
        assert re.fullmatch("[0-9a-f]{32}", stop)
        assert printed[1:] == ["::notice::Passed", "::error::no-newline", f"::{stop}::"]
        stops.add(stop)
    assert len(stops) == 2, "a word that is known beforehand could be printed"


def test_modules_that_the_pull_request_brought_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    for name in ("pip", "json"):
        (tmp_path / "checkout" / f"{name}.py").write_text(f"open({str(tmp_path / 'hit')!r}, 'w')")
    stand_in(tmp_path, "python", f'exec {sys.executable} "$@"')
    index = {"TORCH_INDEX": "file:///nowhere", "PACKAGE_INDEX": "file:///nowhere"}
    done = shell(SCRIPTS["Install samdec-export"], tmp_path, EXTRAS="cpu", SOURCE=str(ROOT), **index)
    assert done.returncode != 0, "there is nothing at that index"
    environment = {key: value for key, value in STEPS["Run"]["env"].items() if "${{" not in value}
    worker = f"{sys.executable} -c 'import json'"  # as `bench` starts one: the working folder leads the path
    shell(worker, tmp_path, **environment)
    assert not (tmp_path / "hit").exists()
    shell(worker, tmp_path)
    assert (tmp_path / "hit").exists(), "without the step's environment it is imported"


def test_each_set_of_packages_comes_from_one_index(tmp_path: Path) -> None:
    stand_in(tmp_path, "python", "")
    index = {"TORCH_INDEX": "https://torch", "PACKAGE_INDEX": "https://packages"}
    shell(SCRIPTS["Install samdec-export"], tmp_path, EXTRAS="cpu,rtx", SOURCE="/action", **index)
    calls = [call.split("\0") for call in (tmp_path / "log").read_text().split("python\0")[1:]]
    assert len(calls) == 3
    for call in calls:
        assert call[:4] == ["-I", "-m", "pip", "--isolated"]
        assert call[call.index("--constraint") + 1] == "/action/constraints.txt"
        assert not {"--extra-index-url", "--find-links"} & {*call}
    assert [call[call.index("--index-url") + 1] for call in calls] == ["https://torch", *["https://packages"] * 2]
    assert calls[0][-3:-1] == ["--no-deps", "torch"], "of PyTorch's index, PyTorch alone"
    assert calls[-1][-2] == "/action[cpu,rtx]"


# The comment


def on_github(folder: Path, comments: Sequence[tuple[str, str, str]]) -> None:
    """A `gh` that lists comments as the step asks for them: number, author, first line."""
    (folder / "listed").write_text("".join("\t".join(row) + "\n" for row in comments))
    stand_in(folder, "gh", f'case "$*" in *--paginate*) cat {folder}/listed;; esac')


def posted(folder: Path) -> tuple[str, str, str]:
    """Method, address and body of the last call."""
    call = words(folder)
    at = call.index("--method")
    body = Path(call[-1].removeprefix("body=@")).read_text(errors="replace")
    return call[at + 1], call[at + 2], body


@pytest.mark.parametrize(
    ("earlier", "updated"),
    [
        ([], ""),
        ([("31", "mallory", MARKER)], ""),
        ([("31", "mallory", MARKER), ("32", US, MARKER), ("33", US, MARKER)], "32"),
        ([("31", US, "<!-- samdec-export: other -->"), ("32", US, f"{MARKER} x"), ("33", "", "")], ""),
        ([("31", "github-actions", MARKER), ("32", "GitHub-Actions[bot]", MARKER)], ""),
    ],
    ids=["none", "of somebody else", "of somebody else and ours", "of another job", "of names like ours"],
)
def test_only_our_own_comment_is_updated(earlier: list[tuple[str, str, str]], updated: str, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Numbers\n")
    on_github(tmp_path, earlier)
    done = comment(tmp_path, tmp_path / "report.md")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    target = ("PATCH", f"comments/{updated}") if updated else ("POST", "5/comments")
    assert posted(tmp_path) == (target[0], f"repos/me/mine/issues/{target[1]}", f"{MARKER}\n# Numbers\n")


def test_a_comment_is_no_longer_than_github_takes(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Numbers\n" + "é" * 100_000)
    on_github(tmp_path, [])
    assert comment(tmp_path, tmp_path / "report.md").returncode == 0
    _, _, body = posted(tmp_path)
    assert body.startswith(f"{MARKER}\n# Numbers\n")
    assert 32_000 < len(body) <= len(body.encode()) <= 65_538, "a letter that was cut is one that stands for any"


@pytest.mark.parametrize("what", ["link", "folder", "absent", "empty"])
def test_the_comment_takes_nothing_but_a_regular_file(what: str, tmp_path: Path, secret: Path) -> None:
    report = tmp_path / "report.md"
    if what == "link":
        report.symlink_to(secret)
    elif what == "folder":
        report.mkdir()
    on_github(tmp_path, [])
    assert comment(tmp_path, "" if what == "empty" else report).returncode == 0
    assert not (tmp_path / "log").exists()


def test_a_token_that_may_not_comment_does_not_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Numbers\n")
    stand_in(tmp_path, "gh", "exit 1")
    done = comment(tmp_path, tmp_path / "report.md")
    assert done.returncode == 0
    assert "::warning::" in done.stdout
    assert words(tmp_path).count("gh") == 1, "nothing is posted where nothing could be read"


# GitLab


@pytest.mark.parametrize("code", [0, 4, 7])
@pytest.mark.parametrize("brought", ["file", "link"])
def test_the_gitlab_job_keeps_nothing_that_the_merge_request_brought(code: int, brought: str, tmp_path: Path) -> None:
    (job,) = yaml.safe_load(GITLAB_JOB).values()
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in (checkout, elsewhere):
        folder.mkdir()
    (elsewhere / "report.xml").write_text("<passed/>")
    report = checkout / "report"
    report.symlink_to(elsewhere) if brought == "link" else elsewhere.rename(report)
    stand_in(tmp_path, "samdec-export", f"{WRITES if code != 4 else ':'}; exit {code}")
    done = shell("\n".join(job["script"]), tmp_path)
    assert done.returncode == code
    assert not report.is_symlink()
    assert [path.name for path in report.iterdir()] == ([] if code == 4 else ["report.md"])
    assert brought == "file" or (elsewhere / "report.xml").exists()
    assert words(tmp_path)[-2:] == ["--", "configs/sam_b.yaml"]
