"""The command line: assembled, with its signals and exit codes. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Annotated

import typer

from samdec_export import __version__
from samdec_export.cli.bench import bench_command
from samdec_export.cli.convert import convert_command, ranges_command
from samdec_export.cli.engines import bundle_app, engines_command, trt_command
from samdec_export.cli.export import doctor_command, inspect_command, models_command, onnx_command
from samdec_export.cli.run import config_app, report_command, run_command
from samdec_export.cli.terminal import printable
from samdec_export.cli.validate import golden_command, record_command, validate_command
from samdec_export.core.errors import GraphError, SamdecError, UsageError
from samdec_export.core.interrupts import SIGNALS
from samdec_export.core.log import show_progress
from samdec_export.core.spelling import as_flag

__all__ = ["app", "main"]

DEFECT = 1
"""What nobody foresaw: Python's own exit code for it."""

DEBUG = "SAMDEC_EXPORT_TRACEBACK"

INTERRUPTED = 130
READER_GONE = 141
"""What a shell shows for a program whose reader closed the pipe, as `head` does: 128 + SIGPIPE."""

LONGEST_LINE = 3000

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


for command in (
    *(onnx_command, convert_command, run_command, trt_command, engines_command, record_command, golden_command),
    *(report_command, validate_command, bench_command, ranges_command, inspect_command, models_command, doctor_command),
):
    app.command(command.__name__.removesuffix("_command"))(command)
app.add_typer(config_app, name="config")
app.add_typer(bundle_app, name="bundle")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: every expected failure is one line on stderr and its type's exit code."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:  # by `>&-`: print would raise
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows a ? rather than a traceback
    code = _call(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        lost = _lose_output(error)
        code = code or lost
    if "stdout" in closed and code == 0:
        _complain("Cannot write the result: standard output is closed.")
        code = GraphError.exit_code
    if code == INTERRUPTED:
        _complain("interrupted; nothing unfinished was left behind.")
    sys.exit(code)


def _call(arguments: list[str]) -> int:
    """Call `app` and return its exit code."""
    try:
        _refuse_empty(arguments)
        app(arguments)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer makes exit code 1 of it
            return _lose_output(stop.__context__)
        return stop.code if isinstance(stop.code, int) else 0
    except SamdecError as error:
        _complain(error.spelled(as_flag))
        return error.exit_code
    except KeyboardInterrupt:  # typer catches it in a command, not while it starts or ends
        return INTERRUPTED
    except Exception as error:
        return _explain(error)
    return 0


def _explain(error: Exception) -> int:
    """Say in one line what no part of the program has translated, and return its exit code."""
    if isinstance(error, OSError):
        if error.filename is None:  # no file has it: this is standard output
            return _lose_output(error)
        _complain(f"{error.filename}: {error.strerror}. Check the path.")
        return UsageError.exit_code
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    _complain(
        f"{type(error).__name__}: {error}. This is a defect of samdec-export: report this line and the command. "
        f"{DEBUG}=1 shows where it happened."
    )
    return DEFECT


def _refuse_empty(words: Sequence[str]) -> None:
    """Do nothing unless a word is empty: an unset variable of a script, which would mean the current folder.

    Raises:
        UsageError: One is; the message names the option before it.
    """
    for before, word in zip(("", *words), words, strict=False):
        option = word[:-1] if word.startswith("--") and word.endswith("=") else before if word == "" else None
        if option is not None:
            named = option if option.startswith("-") else "An argument"
            raise UsageError(f"{named} is empty.", "Give it a value, or leave it out; is a shell variable not set?")


def _complain(message: str) -> None:
    """Print one line, whatever names from a damaged file are in it."""
    line = printable(" ".join(message.split()))
    shortened = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
    print(f"samdec-export: {shortened}", file=sys.stderr)


def _lose_output(error: OSError) -> int:
    """Say that standard output is gone, and keep Python from trying again at its end. A closed pipe is no failure."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    _complain(f"Cannot write the result: {error.strerror}.")
    return GraphError.exit_code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that scratch folders are removed, whatever the signal
