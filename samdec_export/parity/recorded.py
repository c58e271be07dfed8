"""Answers that were recorded: what eager PyTorch or an engine returned elsewhere, given for the same inputs again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import NamedFeeds, arrays_sha256
from samdec_export.core.runner import Feeds, Outputs
from samdec_export.parity.polygraphy import read_outputs

__all__ = ["RecordedRunner", "open_outputs"]


class RecordedRunner:
    """Knows its answers by the inputs themselves: it cannot give those of another case by mistake.

    Args:
        name: Who answered then, and where that is kept.
        answers: What gives the outputs, by the SHA-256 of the inputs (`feeds.arrays_sha256`).
    """

    def __init__(self, name: str, answers: Mapping[str, Callable[[], Outputs]]) -> None:
        self.name = name
        self.answers = answers

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs that were recorded for these inputs, bit for bit the same ones.

        Raises:
            UsageError: There are none.
        """
        digest = arrays_sha256(feeds)
        if digest not in self.answers:
            raise UsageError(
                f"{self.name} holds no outputs for these inputs (sha256 {digest[:12]}...).",
                "Record them again, or give the inputs that they were recorded for.",
            )
        return self.answers[digest]()


def open_outputs(path: Path, cases: Sequence[NamedFeeds]) -> list[RecordedRunner]:
    """Return what engines answered elsewhere, as `polygraphy run --save-outputs` wrote it: a runner for each of them.

    Args:
        path: Polygraphy's file, or its folder of iterations.
        cases: The inputs that they answered to, in that order.

    Raises:
        UsageError: It cannot be read, there is not one iteration for each case, or two cases are alike.
        DependencyError: Polygraphy is not installed.
    """
    digests = [arrays_sha256(case.make()) for case in cases]
    if len({*digests}) < len(digests):
        raise UsageError("Two cases have the same inputs: which answer belongs to which is not known.", "Keep one.")
    runners = []
    for name, iterations in read_outputs(path).items():
        if len(iterations) != len(cases):
            raise UsageError(
                f"{path} holds {len(iterations)} iterations of {name}, and there are {len(cases)} cases of inputs.",
                "Give the inputs that it was made with, as {feeds} or {golden}.",
            )
        answers: dict[str, Callable[[], Outputs]] = {
            digest: partial(dict, outputs) for digest, outputs in zip(digests, iterations, strict=True)
        }
        runners.append(RecordedRunner(f"{name} ({path.name})", answers))
    return runners
