"""A validation in parts: each case of a sweep is a small JSON task, run anywhere, and what they give is merged.

    tasks = sweep_tasks(Path("sam_b.decoder.onnx"), checkpoint=Path("sam_b.pt"))
    results = merge([run_task(task) for task in tasks])

A validation in one process measures and merges by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from samdec_export.backends.candidates import open_candidate
from samdec_export.core.drawing import Case
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.options import Provider, SweepName
from samdec_export.core.plain import from_plain, to_plain
from samdec_export.core.results import Tolerance
from samdec_export.core.signature import Signature
from samdec_export.parity.cases import only_case, read_feeds
from samdec_export.parity.comparisons import comparisons_of
from samdec_export.parity.golden import Golden, open_golden
from samdec_export.parity.measure import CaseMeasurement, Place, measure_case
from samdec_export.parity.references import references_of
from samdec_export.parity.sweeps import sweep_within

__all__ = ["CaseTask", "run_task", "sweep_tasks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTask:
    """One case of a validation.

    Paths are as the machine that runs the task knows them. `asked` and `seed` are of a sweep, and `case` names a
    recorded one, in the file `feeds` or in a golden. Without a tolerance, the limits are those of the file's precision;
    `evidence` gathers how errors are spread, and the worst masks.
    """

    file: str
    checkpoint: str | None = None
    provider: Provider | None = None
    tolerance: Tolerance | None = None
    evidence: bool = False
    asked: Case | None = None
    seed: int = 0
    case: str | None = None
    feeds: str | None = None
    golden: str | None = None
    place: Place = field(default_factory=Place)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        found: dict[str, Any] = to_plain(self)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseTask:
        """Read what `to_json` wrote; raise KeyError, TypeError or ValueError where `data` is not such an object."""
        return from_plain(cls, data)


def sweep_tasks(
    file: Path,
    *,
    checkpoint: Path | None = None,
    provider: Provider | None = None,
    sweep: SweepName = "full",
    seed: int = 0,
) -> list[CaseTask]:
    """Return the tasks that a sweep over a file consists of, which `validate` would run in this process.

    Raises:
        SamdecError: The file cannot be opened, as `open_candidate` says.
    """
    cases = sweep_within(open_candidate(file, provider).signatures, sweep)
    weights = str(checkpoint) if checkpoint else None
    common = CaseTask(file=str(file), checkpoint=weights, provider=provider, seed=seed)
    return [
        replace(common, asked=case, place=Place(number=number, total=len(cases))) for number, case in enumerate(cases)
    ]


def run_task(task: CaseTask) -> CaseMeasurement:
    """Measure one case.

    Raises:
        SamdecError: There is no such case, or a file cannot be opened or run, as the stages say.
    """
    candidate = open_candidate(Path(task.file), task.provider)
    signature = candidate.artifact.record.signature
    golden = open_golden(Path(task.golden)) if task.golden else None
    references = references_of(candidate, Path(task.checkpoint) if task.checkpoint else None, golden)
    comparisons = [
        replace(comparison, tolerance=task.tolerance or comparison.tolerance, evidence=task.evidence)
        for comparison in comparisons_of(candidate, references)[0]
    ]
    return measure_case(comparisons, signature, _case(task, signature, golden), task.place, references[-1].findings)


def _case(task: CaseTask, signature: Signature, golden: Golden | None) -> NamedFeeds:
    if task.asked:
        return NamedFeeds.of(signature, task.asked, task.seed)
    recorded = golden.cases() if golden else read_feeds(Path(task.feeds or ""), signature)
    (case,) = only_case(recorded, task.case or "")
    return case
