"""The GitHub action and the documented jobs: valid by the hosts' schemas, sound shell, and right in what they do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_container import tool

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step.get("name", step.get("uses", "")): step for step in ACTION["runs"]["steps"]}
SCRIPTS = {name: step["run"] for name, step in STEPS.items() if "run" in step}
DOCS = (ROOT / "docs" / "ci.md").read_text()
GITHUB_JOB, GITLAB_JOB = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def schema_errors(schema: str, text: str, folder: Path, *words: str) -> str:
    path = folder / "file.yml"
    path.write_text(text)
    done = tool("check-jsonschema", "--builtin-schema", schema, *words, path)
    return "" if done.returncode == 0 else done.stdout


GITLAB = ("vendor.gitlab-ci", "--data-transform", "gitlab-ci")


@pytest.mark.parametrize(
    ("schema", "text", "broken"),
    [
        (("vendor.github-actions",), (ROOT / "action.yml").read_text(), ("using: composite", "using: composition")),
        (("vendor.github-workflows",), GITHUB_JOB, ("runs-on:", "runs_on:")),
        (GITLAB, GITLAB_JOB, ("when: always", "when: sometimes")),
    ],
    ids=["action.yml", "GitHub", "GitLab"],
)
def test_files_follow_their_schemas(
    schema: tuple[str, ...], text: str, broken: tuple[str, str], tmp_path: Path
) -> None:
    assert schema_errors(schema[0], text, tmp_path, *schema[1:]) == ""
    assert schema_errors(schema[0], text.replace(*broken), tmp_path, *schema[1:]), "a broken one is told"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound_and_take_their_inputs_from_the_environment(name: str) -> None:
    script = SCRIPTS[name]
    assert tool("shellcheck", "--shell", "bash", "-", text=script).stdout == ""
    assert "${{" not in script, "an input pasted into a script could hold a command"
    assert STEPS[name]["shell"] == "bash"


def test_jobs_call_the_action_with_inputs_that_it_has() -> None:
    (step,) = (step for step in yaml.safe_load(GITHUB_JOB)["jobs"]["export"]["steps"] if "samdec" in step["uses"])
    assert step["with"].keys() <= ACTION["inputs"].keys()
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text()))
    assert used == ACTION["inputs"].keys()


def test_actions_are_pinned() -> None:
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    assert len(used) == 2
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


def test_inputs_and_outputs_are_documented() -> None:
    for name, about in ACTION["inputs"].items():
        default = about.get("default")
        shown = f"`{default}`" if default else ""
        assert re.sub(" +", " ", f"| `{name}` | {shown} | {about['description']} |") in DOCS
    for name, about in ACTION["outputs"].items():
        assert f"| `{name}` | {about['description']} |" in DOCS


def test_the_gitlab_job_keeps_the_junit_report_of_a_failed_gate() -> None:
    (job,) = yaml.safe_load(GITLAB_JOB).values()
    folder = re.search(r"--out (\S+)", job["script"][0])
    assert folder is not None
    assert job["artifacts"]["reports"]["junit"] == f"{folder[1]}/report.xml"
    assert job["artifacts"]["when"] == "always"


# What the scripts do, with stand-ins for samdec-export and gh


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program that logs its arguments, one a line, then runs `script`."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" {name} "$@" >> {folder}/log\n{script}\n')
    path.chmod(0o755)


def run_step(name: str, folder: Path, **environment: Any) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step with `shell: bash`."""
    script = folder / "step.sh"
    script.write_text(SCRIPTS[name])
    variables = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": f"{folder}/output",
        "GITHUB_STEP_SUMMARY": f"{folder}/summary",
        "GITHUB_REPOSITORY": "me/mine",
        **environment,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("code", "ckpt"), [(0, ""), (7, "a b.pt")])
def test_a_run_reports_whatever_its_end(code: int, ckpt: str, tmp_path: Path) -> None:
    stand_in(
        tmp_path, "samdec-export", f"mkdir -p 'the report'; echo '# Numbers' > 'the report/report.md'; exit {code}"
    )
    done = run_step("Run", tmp_path, CONFIG="configs/x.yaml", CKPT=ckpt, OUT="the report")
    assert done.returncode == 0, done.stderr
    words = ["samdec-export", "run", "configs/x.yaml", "--out", "the report", *(["--ckpt", ckpt] if ckpt else [])]
    assert (tmp_path / "log").read_text().splitlines() == words
    assert (tmp_path / "output").read_text() == f"exit-code={code}\n"
    assert (tmp_path / "summary").read_text() == "# Numbers\n"
    assert run_step("Pass or fail", tmp_path, CODE=str(code)).returncode == code


def test_a_run_that_wrote_no_report(tmp_path: Path) -> None:
    stand_in(tmp_path, "samdec-export", "exit 2")
    assert run_step("Run", tmp_path, CONFIG="absent.yaml", CKPT="", OUT="report").returncode == 0
    assert (tmp_path / "output").read_text() == "exit-code=2\n"
    assert run_step("Comment on the pull request", tmp_path, OUT="report").returncode == 0


@pytest.mark.parametrize(("earlier", "method"), [("", "POST"), ("31\n32\n", "PATCH")])
def test_one_comment_that_is_updated(earlier: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Numbers\n" + "x" * 100_000)
    stand_in(
        tmp_path, "gh", f'case "$*" in *--paginate*) printf "{earlier}";; *) cat "${{@: -1}}" 2>/dev/null;; esac; true'
    )
    done = comment(tmp_path)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "log").read_text().splitlines()
    target = "repos/me/mine/issues/comments/31" if earlier else "repos/me/mine/issues/5/comments"
    assert words[words.index("--method") + 1 : words.index("--method") + 3] == [method, target]
    body = Path(words[-1].removeprefix("body=@")).read_text()
    assert body.startswith("<!-- samdec-export: mine -->\n# Numbers\n")
    assert len(body) < 65_536, "GitHub takes no longer ones"


def comment(folder: Path) -> subprocess.CompletedProcess[str]:
    return run_step(
        "Comment on the pull request", folder, OUT=".", NUMBER="5", MARKER="<!-- samdec-export: mine -->", GH_TOKEN="-"
    )


def test_a_token_that_may_not_comment_does_not_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Numbers\n")
    stand_in(tmp_path, "gh", "exit 1")
    done = comment(tmp_path)
    assert done.returncode == 0
    assert "::warning::" in done.stdout
    assert (tmp_path / "log").read_text().count("gh\n") == 1, "nothing is posted where nothing could be read"


def test_the_install_step_takes_this_very_source(tmp_path: Path) -> None:
    stand_in(tmp_path, "python", "")
    run_step("Install samdec-export", tmp_path, EXTRAS="cpu,rtx", TORCH_INDEX="https://index", SOURCE="/action")
    words = (tmp_path / "log").read_text().splitlines()
    assert words[-1] == "/action[cpu,rtx]"
    assert words.count("/action/constraints.txt") == 2
    assert "https://index" in words
