"""Run a Python program in a process that shares traces: with_traces.py FOLDER (-m MODULE | SCRIPT) WORDS."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from traces import sharing_traces


def main() -> None:
    """Run the module or script as `python` does."""
    _, folder, *words = sys.argv
    with sharing_traces(Path(folder)):
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
