"""Edited files judged as `validate` judges files, with answers of the references that are computed once."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx
from edited_graph import Edit, EditedGraph
from onnx import helper

from samdec_export.backends.candidates import Candidate, open_candidate, open_runners
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.feeds import FeedsCache, NamedFeeds, arrays_sha256
from samdec_export.core.options import SweepName
from samdec_export.core.results import ValidationResult
from samdec_export.core.runner import Feeds, Outputs, Runner
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.parity.measure import Comparison
from samdec_export.parity.references import eager_references
from samdec_export.parity.sweeps import sweep
from samdec_export.parity.tolerances import TILTS, tilt_limits
from samdec_export.parity.validate import validate

__all__ = ["Judge", "KnownRunner", "tilt_shares"]


class KnownRunner:
    """Remembers what a runner answered, by its inputs."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._known: dict[str, Outputs] = {}

    @property
    def name(self) -> str:
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        key = arrays_sha256(feeds)
        if key not in self._known:
            self._known[key] = self.runner.run(feeds)
        return self._known[key]


@dataclass(frozen=True)
class _Followed:
    """The answers of a runner, changed by a graph of their own."""

    runner: Runner
    changes: Runner

    @property
    def name(self) -> str:
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        return self.changes.run({f"{name}_fed": array for name, array in self.runner.run(feeds).items()})


class Judge:
    """A right file, what it is held against, and the cases of its sweep.

    Args:
        path: The right file.
        loaded: What it was made from.
        folder: Where edited files are written.
        seed: Of the inputs.
    """

    def __init__(self, path: Path, loaded: LoadedModel, folder: Path, seed: int = 0) -> None:
        self.path = path
        self.folder = folder
        self.candidate: Candidate = open_candidate(path)
        self.signature = self.candidate.artifact.record.signature
        reference = eager_references(self.candidate.artifact, loaded)[-1]
        assert reference.exact
        self.reference = replace(
            reference, runner=KnownRunner(reference.runner), exact=KnownRunner(reference.exact), findings=()
        )
        made = [NamedFeeds.of(self.signature, case, seed) for case in sweep(self.signature, "full")]
        self._cases = {case.name: case for case in FeedsCache().keep(made)}
        self._quick = [case.name for case in sweep(self.signature, "quick")]

    def cases(self, width: SweepName, without: Collection[str] = ()) -> list[NamedFeeds]:
        names = self._quick if width == "quick" else [*self._cases]
        return [self._cases[name] for name in names if name not in without]

    @cached_property
    def own(self) -> Runner:
        """What runs the right file: ONNX Runtime, or the oracle, whose answers are kept, where that cannot."""
        found = open_runners(self.candidate)
        if found.own:
            return OrtRunner(self.path, threads=1)
        assert found.oracle
        return KnownRunner(found.oracle)

    def edited(self, edit: Edit) -> Runner:
        """Return what runs the edited file; where ONNX Runtime cannot, the edit may only change outputs."""
        path = self.folder / "edited.onnx"
        model = onnx.load(self.path)
        followed = isinstance(self.own, KnownRunner)
        graph = EditedGraph(_outputs_alone(model) if followed else model)
        edit(graph)
        runner = OrtRunner(graph.save(path), threads=1)
        return _Followed(self.own, runner) if followed else runner

    def judge(self, runner: Runner, width: SweepName = "quick", without: Collection[str] = ()) -> ValidationResult:
        """Judge a runner on the cases of a sweep but for some."""
        comparison: Comparison = self.reference.against(runner, self.candidate.rounding)
        result: ValidationResult = validate([comparison], self.signature, self.cases(width, without))[0]
        return result

    @cached_property
    def alarms(self) -> list[str]:
        """The cases of a full sweep that the right file fails."""
        return [case.case for case in self.judge(self.own, "full").cases if not case.passed]

    def finds(self, edited: Runner, width: SweepName = "quick") -> bool:
        """Return whether a runner fails, for another reason than one for which the right file would."""
        return not self.judge(edited, width, self.alarms).passed


def _outputs_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that returns what it is fed."""
    inputs, nodes = [], []
    for value in model.graph.output:
        fed = onnx.ValueInfoProto()
        fed.CopyFrom(value)
        fed.name = f"{value.name}_fed"
        inputs.append(fed)
        nodes.append(helper.make_node("Identity", [fed.name], [value.name]))
    graph = helper.make_graph(nodes, "outputs", inputs, [*model.graph.output])
    return helper.make_model(graph, opset_imports=[*model.opset_import], ir_version=model.ir_version)


def tilt_shares(result: ValidationResult) -> dict[str, float]:
    """Return the largest offset, scale and shift of an output as a share of what rounding explains."""
    shares = dict.fromkeys(TILTS, 0.0)
    for output, tilt in result.tilts.items():
        allowed = statistics.fmean(case.limits[output].relative for case in result.cases)
        limits = tilt_limits(tilt, allowed, len(result.cases))
        sizes = {"offset": abs(tilt.offset), "scale": abs(tilt.scale), "shift": max(abs(tilt.right), abs(tilt.down))}
        shares = {name: max(share, sizes[name] / limits[name]) for name, share in shares.items()}
    return shares
