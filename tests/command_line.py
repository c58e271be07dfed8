"""The command line, called as a user calls it: in a process of its own, or in this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from samdec_export.cli import app as cli

COMMAND = [sys.executable, "-W", "error", "-m", "samdec_export"]


def run(*words: str | Path, command: Sequence[str] = COMMAND, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own."""
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, check=False, timeout=300, **options
    )


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Run in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["-q", *map(str, words)])
    captured = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def is_one_clear_line(text: str) -> bool:
    return text.startswith("samdec-export: ") and text.count("\n") == 1 and "Traceback" not in text
