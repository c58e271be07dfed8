"""The commands of a run: run, config, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from samdec_export import api
from samdec_export.api import BuildOptions, CaseOptions
from samdec_export.cli.flags import AsJson, Checkpoint, Graph, Model, flag, print_json
from samdec_export.cli.terminal import console, size
from samdec_export.core.options import ExportOptions, SweepName

__all__ = ["config_app", "report_command", "run_command"]

COLOURS = {True: "bold green", False: "bold red"}

config_app = typer.Typer(help="The config of a run: its keys, and what a file of them comes to.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Argument(help="YAML file.", show_default="the usual values")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE over the file, such as gate.fp16.iou=0.95.", show_default=False),
]


def run_command(
    config: ConfigFile = None,
    ckpt: Checkpoint = None,
    model: Model = None,
    graph: Graph = None,
    precisions: Annotated[str | None, typer.Option(help="Such as fp32,fp16.", show_default=False)] = None,
    engines: Annotated[str | None, typer.Option(help="rtx, tensorrt, both, or none.", show_default="auto")] = None,
    targets: Annotated[str | None, flag(BuildOptions, "targets", show_default=False)] = None,
    sweep: Annotated[SweepName | None, flag(CaseOptions, "sweep", show_default=False)] = None,
    out: Annotated[Path | None, flag(ExportOptions, "out", show_default=False)] = None,
    settings: Settings = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read the checkpoint again, though its size and time are as before.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the config's JSON Schema and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make, compare and report everything that a config asks for; unchanged stages are skipped."""
    if schema:
        schema_command()
        return
    flags: dict[str, Any] = {
        "checkpoint": ckpt,
        "model": model,
        "graph": graph,
        "precisions": precisions and _names(precisions),
        "engines.build": engines and _names(engines),
        "engines.targets": targets and _names(targets),
        "parity.sweep": sweep,
        "out": out,
    }
    given = [(key, value) for key, value in flags.items() if value is not None]
    done = api.run(config, [*given, *(settings or ())], rehash=rehash)
    print_json(done.document.to_json()) if as_json else ran(done)
    done.require()


def _names(text: str) -> list[str] | str:
    """Return a list such as `fp32,fp16`; `none` is an empty one, `both` every engine."""
    match text.strip():
        case "auto":
            return "auto"
        case "none":
            return []
        case "both":
            return ["tensorrt", "rtx"]
        case names:
            return [name.strip() for name in names.split(",")]


def ran(done: api.Ran) -> None:
    """Print the verdict, a row for each artifact, the failed thresholds, and where everything is."""
    screen, document = console(), done.document
    screen.print(document.headline, style=COLOURS[document.passed])
    table = Table("artifact", "precision", "size", "status")
    for artifact in document.artifacts:
        built = "built, " if artifact.status == "not run" else ""
        status = f"{built}{artifact.status}" + (f": {artifact.reason}" if artifact.reason else "")
        table.add_row(artifact.file, artifact.precision, size(artifact.bytes), status)
    screen.print(table)
    for verdict in document.verdicts:
        if not verdict.passed:
            screen.print(f"FAILED {verdict.threshold}: {verdict.sentence}", style="red")
    for note in document.notes:
        screen.print(f"Note: {note}")
    skipped = sum(entry.reused for entry in done.stages)
    screen.print(f"{len(done.stages) - skipped} stages run, {skipped} skipped.")
    screen.print(f"Report: {done.out / 'report.html'} (also .md, .json, and .xml for JUnit)")


@config_app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a config, for editors."""
    print_json(api.config_schema())


@config_app.command("show")
def show_command(config: ConfigFile = None, settings: Settings = None) -> None:
    """Print a config in full, with what it leaves out, as YAML that reads back."""
    print(api.config_text(config, settings or ()), end="")


def _show_schema(wanted: bool) -> None:
    if wanted:
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
