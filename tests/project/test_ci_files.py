"""The GitHub action and the documented jobs: valid by the hosts' schemas, sound shell, pinned, with few permissions."""

from __future__ import annotations

import re
from pathlib import Path

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


@pytest.mark.parametrize("text", [(ROOT / "action.yml").read_text(), GITHUB_JOB], ids=["action.yml", "GitHub"])
def test_actions_are_pinned_by_commit_and_say_their_version(text: str) -> None:
    used = re.findall(r"uses: (.*)", text.replace("OWNER/samdec-export@COMMIT", f"OWNER/samdec-export@{'0' * 40}"))
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", name) for name in used), used


def test_the_token_is_in_the_environment_of_one_step_alone() -> None:
    holders = [name for name, step in STEPS.items() if "inputs.token" in str(step) or "github.token" in str(step)]
    assert holders == ["Comment on the pull request"]
    environment = STEPS["Comment on the pull request"]["env"]
    assert {"GH_TOKEN", "AUTHOR", "MARKER", "REPORT", "NUMBER"} == environment.keys()


def test_the_artifact_and_the_comment_are_of_the_runs_own_folder() -> None:
    assert STEPS["Keep the report"]["with"]["path"] == "${{ steps.run.outputs.folder }}"
    assert STEPS["Comment on the pull request"]["env"]["REPORT"] == "${{ steps.run.outputs.report }}"
    assert ACTION["outputs"]["report"]["value"] == "${{ steps.run.outputs.folder }}"


def test_the_github_job_gives_few_permissions_and_leaves_no_credentials() -> None:
    job = yaml.safe_load(GITHUB_JOB)
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert [*job[True]] == ["pull_request"], "YAML reads the key `on` as true"
    checkout, _ = job["jobs"]["export"]["steps"]
    assert checkout["with"]["persist-credentials"] is False


def test_inputs_and_outputs_are_documented() -> None:
    for name, about in ACTION["inputs"].items():
        default = about.get("default")
        shown = f"`{default}`" if default else ""
        assert re.sub(" +", " ", f"| `{name}` | {shown} | {about['description']} |") in DOCS
    for name, about in ACTION["outputs"].items():
        assert f"| `{name}` | {about['description']} |" in DOCS


def test_the_gitlab_job_keeps_the_junit_report_of_a_failed_gate() -> None:
    (job,) = yaml.safe_load(GITLAB_JOB).values()
    folder = re.search(r"--out (\S+)", job["script"][-1])
    assert folder is not None
    assert job["artifacts"]["reports"]["junit"] == f"{folder[1]}/report.xml"
    assert job["artifacts"]["when"] == "always"


def test_the_gitlab_jobs_image_is_named_by_a_digest_that_must_be_given() -> None:
    (job,) = yaml.safe_load(GITLAB_JOB).values()
    assert job["image"]["name"].endswith("/samdec-export@$SAMDEC_EXPORT_DIGEST")
