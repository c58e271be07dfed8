"""Around the command line: signals, exit codes, and output that cannot be written."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from types import FrameType

from samdec_export.errors import GraphError, SamdecError
from samdec_export.interrupts import SIGNALS
from samdec_export.terminal import printable

__all__ = ["run"]

INTERRUPTED = 130
LONGEST_LINE = 3000


def run(app: Callable[[list[str] | None], object], arguments: list[str] | None) -> None:
    """Call `app` and exit: every expected failure is one line on stderr and its type's exit code.

    Args:
        app: Parses the arguments and does the work.
        arguments: Those of the command line; None for the process's own.
    """
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows a ? rather than a traceback
    try:
        app(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except SamdecError as error:
        _complain(str(error))
        code = error.exit_code
    except KeyboardInterrupt:  # typer catches it in a command, not while it starts or ends
        code = INTERRUPTED
    except OSError as error:  # files are translated where they are written: this is standard output
        code = _lose_output(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _lose_output(error)
    if code == INTERRUPTED:
        _complain("interrupted; nothing unfinished was left behind.")
    sys.exit(code)


def _complain(message: str) -> None:
    """One line, whatever names from a damaged file are in it."""
    line = printable(" ".join(message.split()))
    shortened = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
    print(f"samdec-export: {shortened}", file=sys.stderr)


def _lose_output(error: OSError) -> int:
    """Standard output is gone: say so, and keep Python from trying again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _complain(f"Cannot write the result: {error.strerror}.")
    return GraphError.exit_code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that scratch folders are removed, whatever the signal
