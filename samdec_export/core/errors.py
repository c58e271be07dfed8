"""The errors a user can meet. One type, one exit code, one message that says what to do next."""

from __future__ import annotations

from typing import ClassVar

from samdec_export.core.spelling import Spelling, as_argument, spelled

__all__ = [
    "CheckpointError",
    "DependencyError",
    "EngineError",
    "GraphError",
    "NoRecordError",
    "SamdecError",
    "UsageError",
    "ValidationError",
]


class SamdecError(Exception):
    """Base of every expected failure.

    `message` says what happened and where, `advice` what to do next: a line each. A choice in them is written
    `{max_flips}`, or `{graph=prompts}` with a value (`core.spelling`).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message, advice)

    @property
    def message(self) -> str:
        """Return what happened, with choices as Python's arguments."""
        return spelled(self.args[0], as_argument)

    @property
    def advice(self) -> str:
        """Return what to do next, with choices as Python's arguments."""
        return spelled(self.args[1], as_argument)

    @property
    def template(self) -> str:
        """Return the whole text with choices as they were written, for another message to hold."""
        return " ".join(self.args).rstrip()

    def spelled(self, spelling: Spelling) -> str:
        """Return the whole text as a surface spells it."""
        return spelled(self.template, spelling)

    def spell(self, spelling: Spelling) -> None:
        """Spell choices in place, where a surface knows them better than whoever shows the error."""
        self.args = tuple(spelled(text, spelling) for text in self.args)

    def __str__(self) -> str:
        return self.spelled(as_argument)


class UsageError(SamdecError):
    """An argument, an option or a file named on the command line is wrong."""

    exit_code = 2


class CheckpointError(SamdecError):
    """A checkpoint cannot be read, is of another network, or is damaged."""

    exit_code = 3


class GraphError(SamdecError):
    """A graph cannot be exported, written or read, or breaks its contract."""

    exit_code = 4


class NoRecordError(GraphError):
    """An ONNX file does not say how it was made: samdec-export did not write it."""


class EngineError(SamdecError):
    """An engine cannot be built, is not what was asked for, or its file is damaged."""

    exit_code = 5


class DependencyError(SamdecError):
    """A package or a device that the command needs is not here."""

    exit_code = 6


class ValidationError(SamdecError):
    """An artifact does not equal its reference."""

    exit_code = 7
