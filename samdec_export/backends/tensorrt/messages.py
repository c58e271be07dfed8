"""What TensorRT says while it works: its log, its parser's errors, and how far it is."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from samdec_export.backends.tensorrt.api import Api, Member, OnnxRefitter, Parser
from samdec_export.core.log import Phases

__all__ = ["Journal", "Monitor", "journal", "parser_errors"]

ERRORS = frozenset({"ERROR", "INTERNAL_ERROR"})
NOISE = re.compile(r"cudaError 35|CUDA driver version is insufficient")
"""Said on every machine without a GPU, also beside an error that has nothing to do with it."""

ORIGIN = re.compile(r"^\w+\.cpp:\d+: |^\[\w+\.cpp::\w+::\d+\] |\s*In \w+ at /\S+:\d+")
"""Where in TensorRT's sources a message was made."""

BRACKETS = re.compile(r"While parsing node number|--- (Begin|End) node ---")
"""Lines around a parser's error, which says the same itself."""


@dataclass(slots=True)
class Journal:
    """Errors and warnings in the order they were said: severity and text.

    TensorRT keeps the first logger of a process for good, so there is one, and a build reads its own part of it.
    """

    logger: object = None
    records: list[tuple[str, str]] = field(default_factory=list)

    def add(self, severity: Member, text: str) -> None:
        """Keep what is worth keeping; called from TensorRT's own threads."""
        if severity.name in ERRORS or severity.name == "WARNING":
            self.records.append((severity.name, _clean(text)))

    def errors(self, start: int) -> list[str]:
        """Return errors since record `start`, each once, without noise."""
        return _distinct(text for severity, text in self.records[start:] if severity in ERRORS)

    def warnings(self, start: int) -> list[str]:
        """Return warnings since record `start`, each once, without noise."""
        return _distinct(text for severity, text in self.records[start:] if severity == "WARNING")


@functools.cache
def journal(api: Api) -> Journal:
    """Return the one journal of a module, and the logger that writes it."""
    kept = Journal()
    kept.logger = type("Logger", (api.ILogger,), {"log": lambda _, severity, text: kept.add(severity, text)})()
    return kept


def parser_errors(parser: Parser | OnnxRefitter) -> list[str]:
    """Return each error of a parser in a line: code, operator, node, and what is wrong."""
    return _distinct(_parser_lines(parser))


def _parser_lines(parser: Parser | OnnxRefitter) -> Iterator[str]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = " ".join(part for part in (error.node_operator(), error.node_name()) if part)
        yield f"{error.code().name}{f' at {node}' if node else ''}: {_clean(error.desc())}"


def _clean(text: str) -> str:
    """Return one line of those that say something."""
    return " ".join(ORIGIN.sub("", line).strip() for line in text.splitlines() if not NOISE.search(line))


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text and not BRACKETS.search(text)))


class Monitor:
    """Shows a build's phases, and ends it when cancelled.

    Args:
        api: The module to make the monitor for.
        phases: Where to show them.
    """

    def __init__(self, api: Api, phases: Phases) -> None:
        self.cancelled = threading.Event()
        methods = {
            "phase_start": lambda _, name, parent, steps: phases.start(name, steps),
            "step_complete": lambda _, name, step: self._step(phases, name, step),
            "phase_finish": lambda _, name: phases.finish(name),
        }
        self.listener = type("Listener", (api.IProgressMonitor,), methods)()

    def _step(self, phases: Phases, name: str, step: int) -> bool:
        phases.advance(name, step)
        return not self.cancelled.is_set()
