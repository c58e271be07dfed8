"""The command that renders a report again: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdec_export.cli.flags import AsJson, print_json
from samdec_export.cli.terminal import console

__all__ = ["report_command"]


def _show_schema(wanted: bool) -> None:
    if wanted:
        from samdec_export import api

        print_json(api.report_schema())
        raise typer.Exit


def report_command(
    report: Annotated[Path, typer.Argument(help="The report.json of a run.", show_default=False)],
    html: Annotated[Path | None, typer.Option(help="Write one HTML page.", show_default=False)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write Markdown for a pull request.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.", show_default=False)] = None,
    github: Annotated[
        bool, typer.Option("--github", help="In GitHub Actions: annotate, and add to the step's summary.")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON Schema and stop.", is_eager=True, callback=_show_schema),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run's report, and render it again as HTML, Markdown or JUnit XML; exit 0 whatever its verdict is."""
    from samdec_export import api

    done = api.report(report, html=html, markdown=markdown, junit=junit, github=github)
    for line in done.workflow_commands:
        typer.echo(line, err=True)
    if as_json:
        print_json(done.to_json())
        return
    screen = console()
    for text in done.lines:
        screen.print(text)
    for path in done.written:
        screen.print(f"Wrote {path}")
