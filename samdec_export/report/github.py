"""A document in GitHub Actions: annotations as workflow commands, and the step's summary.

Escapes are those of actions/toolkit, packages/core/src/command.ts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from samdec_export.core.errors import UsageError
from samdec_export.report.document import Document
from samdec_export.report.markdown import to_markdown
from samdec_export.report.views import failed, headline

__all__ = ["announce", "workflow_commands"]

SHOWN = 10
"""Annotations of one kind that GitHub shows of a step."""


def workflow_commands(document: Document) -> list[str]:
    """Workflow commands to print, a line each: an error for each broken threshold, or the good news.

    Artifacts that were not run are notices of their own.
    """
    if document.passed:
        lines = [_command("notice", document.title, headline(document))]
    else:
        broken = [(f"{verdict.threshold}: {verdict.artifact}", verdict.sentence) for verdict in failed(document)]
        shown = broken if len(broken) <= SHOWN else broken[: SHOWN - 1]
        lines = [_command("error", title, sentence) for title, sentence in shown]
        if not broken or len(broken) > SHOWN:
            rest = f" {len(broken) - len(shown)} more thresholds are broken." if broken else ""
            lines.append(_command("error", document.title, headline(document) + rest))
    skipped = [artifact for artifact in document.artifacts if artifact.status == "not run"]
    return lines + [_command("notice", item.name, item.reason or "not run") for item in skipped[: SHOWN - 1]]


def announce(document: Document, environment: Mapping[str, str]) -> list[str]:
    """Add the Markdown to the step's summary in GitHub Actions, and return the commands to print; elsewhere nothing.

    Raises:
        UsageError: The summary cannot be written.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    if name := environment.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(name).open("a", encoding="utf-8") as file:
                file.write(to_markdown(document) + "\n")
        except OSError as error:
            raise UsageError(
                f"Cannot write the step's summary, {name}: {error.strerror}.",
                "Correct GITHUB_STEP_SUMMARY, or unset it.",
            ) from error
    return workflow_commands(document)


def _command(level: str, title: str, message: str) -> str:
    title, message = (text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A") for text in (title, message))
    return f"::{level} title={title.replace(':', '%3A').replace(',', '%2C')}::{message}"
