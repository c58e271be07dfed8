"""The command line, assembled. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

from typing import Annotated

import typer

from samdec_export import __version__
from samdec_export.cli.bench import bench_command
from samdec_export.cli.bundle import bundle_app
from samdec_export.cli.convert import convert_command, ranges_command
from samdec_export.cli.engines import engines_command, trt_command
from samdec_export.cli.entry import run
from samdec_export.cli.export import doctor_command, inspect_command, models_command, onnx_command
from samdec_export.cli.golden import golden_command, record_command
from samdec_export.cli.report import report_command
from samdec_export.cli.run import config_app, run_command
from samdec_export.cli.validate import validate_command
from samdec_export.core.log import show_progress

__all__ = ["app", "main"]

app = typer.Typer(
    name="samdec-export",
    help="Take the mask decoder of Segment Anything models from a checkpoint to a deployed engine, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"samdec-export {__version__}")
        raise typer.Exit


@app.callback()
def start(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, errors only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    if not quiet:
        show_progress()


app.command("onnx")(onnx_command)
app.command("convert")(convert_command)
app.command("run")(run_command)
app.add_typer(config_app, name="config")
app.command("trt")(trt_command)
app.command("engines")(engines_command)
app.command("record")(record_command)
app.command("golden")(golden_command)
app.command("report")(report_command)
app.add_typer(bundle_app, name="bundle")
app.command("validate")(validate_command)
app.command("bench")(bench_command)
app.command("ranges")(ranges_command)
app.command("inspect")(inspect_command)
app.command("models")(models_command)
app.command("doctor")(doctor_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: every expected failure is one line on stderr and its type's exit code."""
    run(app, arguments)
