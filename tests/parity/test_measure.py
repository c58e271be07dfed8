"""A case's verdict is its own: no other case, no order and no machine changes it."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from broken_graphs import perturb_a_weight
from conftest import Export, Typed

from samdec_export import api
from samdec_export.backends.candidates import open_candidate
from samdec_export.core.drawing import Case
from samdec_export.core.errors import UsageError, ValidationError
from samdec_export.core.feeds import FeedsCache, Inputs, NamedFeeds, make_feeds
from samdec_export.core.options import SweepName
from samdec_export.core.results import CaseResult, ValidationResult
from samdec_export.core.runner import Array, Feeds, Outputs
from samdec_export.core.signature import Signature, TensorSpec
from samdec_export.export.onnx_file import open_artifact
from samdec_export.parity.measure import CaseMeasurement, Comparison, Place, measure_case
from samdec_export.parity.tasks import CaseTask, run_task, sweep_tasks
from samdec_export.parity.tolerances import FLOOR_FACTOR, TOLERANCES
from samdec_export.parity.validate import REPEATED, merge, validate
from samdec_export.precision.options import Conversion

SPECS = (
    TensorSpec(name="masks", dtype="float32", shape=(1, 2, 4, 4), content="masks"),
    TensorSpec(name="iou_predictions", dtype="float32", shape=(1, 2), content="scores"),
)
SIGNATURE = Signature(inputs=(), outputs=SPECS)
MASKS = np.linspace(-8, 8, 32, dtype=np.float32).reshape(1, 2, 4, 4)
SCORES = np.array([[0.25, 0.75]], np.float32)


SIGNS = np.tile(np.array([1, -1, -1, 1], np.float32), 8).reshape(MASKS.shape)
"""Which way an error goes: no way on the whole, as that of rounding."""


class Scaled:
    """A runner whose masks are off by the case's `rounding`, as often as it is asked for."""

    def __init__(self, name: str, times: float) -> None:
        self.name, self.times, self.runs = name, times, 0

    def run(self, feeds: Feeds) -> Outputs:
        self.runs += 1
        factor = 1 + np.float32(self.times * float(feeds["rounding"])) * SIGNS
        return {"masks": MASKS * factor, "iou_predictions": SCORES}


def case_of(name: str, rounding: float) -> NamedFeeds:
    return NamedFeeds(name, {}, partial(dict[str, Array], rounding=np.float32(rounding)))


def by_name(result: ValidationResult) -> dict[str, CaseResult]:
    return {case.case: case for case in result.cases}


def judged(cases: Sequence[NamedFeeds], off: float = 5e-4) -> ValidationResult:
    """A candidate that is off by `off` in every case, against a reference that is itself off by `rounding`."""

    class Off(Scaled):
        def run(self, feeds: Feeds) -> Outputs:
            return {"masks": MASKS * (1 + np.float32(off) * SIGNS), "iou_predictions": SCORES}

    comparison = Comparison(
        candidate=Off("candidate", 0), reference=Scaled("reference", 0), exact=Scaled("exact", 1), tolerance=FP32
    )
    (result,) = validate([comparison], SIGNATURE, cases)
    return result


FP32 = TOLERANCES["fp32"]
PLAIN, ROUGH = case_of("plain", 0.0), case_of("rough", 2e-4)


def test_a_floor_raises_the_limits_of_its_own_case_alone() -> None:
    """Guards against floors that are pooled: then [rough, plain] passes whole, and [plain, rough] fails in `plain`."""
    orders = [judged(order) for order in ([PLAIN, ROUGH], [ROUGH, PLAIN])]
    alone = {case.name: judged([case]).cases[0] for case in (PLAIN, ROUGH)}
    for result in orders:
        assert by_name(result) == alone, "bit for bit"
        assert {name: case.passed for name, case in by_name(result).items()} == {"plain": False, "rough": True}
    limit = alone["rough"].limits["masks"]
    assert limit.floor is not None
    assert limit.relative == limit.margin == FLOOR_FACTOR * limit.floor > FP32.logits
    assert alone["plain"].limits["masks"].relative == FP32.logits
    assert [result.allowed["masks"] for result in orders] == [limit.relative] * 2, "the largest, for the report"


def test_the_first_floor_is_for_scale() -> None:
    """It is in the report; it raises nothing, not even the limits of its own case."""
    first = case_of("first", 1e-2)
    result = judged([first, PLAIN], off=0.0)
    assert result.passed
    assert result.floors["masks"].case == "first"
    assert result.floors["masks"].relative > 1e-3, "of the first case it raises nothing, so it is no doubt either"
    assert result.cases[0].limits["masks"].floor is None
    assert result.allowed["masks"] == FP32.logits


def test_floors_are_measured_only_where_they_are_needed() -> None:
    exact = Scaled("exact", 1)
    right, other = Scaled("right", 0), Scaled("other", 0)
    comparison = Comparison(candidate=right, reference=other, exact=exact, tolerance=FP32)
    validate([comparison], SIGNATURE, [PLAIN, ROUGH, case_of("third", 1.0), case_of("fourth", 1.0)])
    assert (right.runs, other.runs, exact.runs) == (4 + REPEATED, 4, 1)


def test_known_floors_take_the_same_path() -> None:
    floors = {case.name: {"masks": floor, "iou_predictions": 0.0} for case, floor in ((PLAIN, 0.0), (ROUGH, 2e-4))}
    measured = {}
    for order in ([PLAIN, ROUGH], [ROUGH, PLAIN]):
        candidate, reference = Scaled("candidate", 1), Scaled("reference", 0)
        comparison = Comparison(
            candidate=candidate, reference=reference, exact=None, tolerance=FP32, known_floors=floors
        )
        (result,) = validate([comparison], SIGNATURE, order)
        assert result.passed
        measured[order[0].name] = by_name(result)
        assert measured[order[0].name]["rough"].limits["masks"].relative == FLOOR_FACTOR * 2e-4
    assert measured["plain"] == measured["rough"]
    nothing_known = replace(comparison, known_floors={"plain": floors["plain"]})
    assert not validate([nothing_known], SIGNATURE, [PLAIN, ROUGH])[0].passed


def test_a_floor_that_is_no_number_raises_nothing() -> None:
    """An exact reference of zeros has no span: its distance is infinite, and must not allow anything at all."""

    class Zeros(Scaled):
        def run(self, feeds: Feeds) -> Outputs:
            return {"masks": np.zeros_like(MASKS), "iou_predictions": SCORES}

    comparison = Comparison(
        candidate=Scaled("candidate", 1), reference=Scaled("reference", 0), exact=Zeros("exact", 0), tolerance=FP32
    )
    assert not validate([comparison], SIGNATURE, [ROUGH])[0].passed


@pytest.fixture(scope="module")
def orders(export: Export, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A file with one weight a little off; an ordinary case before one that eager fp32 itself rounds off; and after."""
    import onnx

    folder = tmp_path_factory.mktemp("orders")
    model = onnx.load(export().artifact.path)
    perturb_a_weight(model)
    onnx.save(model, folder / "bad.onnx")
    ordinary = make_feeds(export().artifact.record.signature, Case(sizes={"batch": 1, "points": 2}))
    flat = {**ordinary, "image_embeddings": np.full_like(ordinary["image_embeddings"], 1e6)}
    cases = {"ordinary": ordinary, "flat": flat}  # every channel alike: LayerNorm sees only what attention adds
    for name, order in (("first", ("flat", "ordinary")), ("last", ("ordinary", "flat"))):
        np.savez(folder / f"{name}.npz", **{f"{case}/{key}": v for case in order for key, v in cases[case].items()})  # type: ignore[arg-type]
    return folder / "bad.onnx", folder / "first.npz", folder / "last.npz"


def test_the_order_of_recorded_cases_changes_nothing(orders: tuple[Path, Path, Path]) -> None:
    """Guards the same with real engines: the perturbed file passed where the ill-conditioned case came first."""
    bad, *files = orders
    results = [api.validate(bad, feeds=path).result for path in files]
    assert [case.case for case in results[0].cases] == ["flat", "ordinary"]
    assert by_name(results[0]) == by_name(results[1])
    assert not by_name(results[0])["ordinary"].passed
    assert {bad.metric for bad in by_name(results[0])["flat"].violations} >= {"reference"}, "eager fp32 knows no better"
    assert max(results[0].allowed.values()) > 10 * FP32.logits, "what `flat` needs, and `ordinary` is not given"
    for name, case in by_name(results[0]).items():
        assert api.validate(bad, feeds=files[0], case=name).result.cases == (case,), "as --case replays it"


def test_a_case_of_a_sweep_is_replayed_bit_for_bit(typed: Typed) -> None:
    whole = api.validate(typed("fp16"), sweep="full")
    for case in (whole.result.cases[0].case, whole.result.cases[-1].case):
        again = api.validate(typed("fp16"), sweep="full", case=case)
        for result, alone in zip(whole.results, again.results, strict=False):
            assert alone.cases == (by_name(result)[case],)
    assert (len(whole.results), len(again.results)) == (3, 1), "the oracle is asked of small cases alone"


# Tasks


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tasks_run_anywhere_give_what_a_validation_gives(typed: Typed, precision: str) -> None:
    path = typed(precision)
    whole = api.validate(path, sweep="quick")
    tasks = [CaseTask.from_json(json.loads(json.dumps(task.to_json()))) for task in sweep_tasks(path, sweep="quick")]
    random.Random(0).shuffle(tasks)
    found = [CaseMeasurement.from_json(json.loads(json.dumps(run_task(task).to_json()))) for task in tasks]
    results = merge(found)
    assert results == whole.results
    assert replace(whole, results=results).to_json() == whole.to_json()


def test_a_task_names_a_recorded_case(export: Export, orders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bad, first, _ = orders
    whole = api.validate(bad, feeds=first).result
    task = CaseTask(file=str(bad), feeds=str(first), case="ordinary")
    (result,) = merge([run_task(task)])
    assert result.cases == (by_name(whole)["ordinary"],)
    golden = api.record(export().artifact.path, out=tmp_path / "g.npz").path
    (judged_by_golden,) = merge([run_task(CaseTask(file=str(bad), golden=str(golden), case="batch=1,points=1"))])
    assert not judged_by_golden.passed
    loose = replace(FP32, logits=1.0, iou_predictions=1.0, iou=0.0, flipped=1.0)
    (allowed,) = merge([run_task(replace(task, tolerance=loose))])
    assert allowed.passed
    with pytest.raises(UsageError, match="There is no case 'nope'"):
        run_task(replace(task, case="nope"))


def measurement(number: int = 0, total: int = 2, **changes: Any) -> CaseMeasurement:
    comparison = Comparison(
        candidate=Scaled("candidate", 0), reference=Scaled("reference", 0), exact=None, tolerance=FP32, **changes
    )
    return measure_case([comparison], SIGNATURE, PLAIN, Place(number=number, total=total))


def test_what_is_no_whole_sweep_is_not_merged() -> None:
    one, two = measurement(0), measurement(1)
    for order in itertools.permutations((one, two)):
        assert merge(order)[0].passed
    for wrong in ([one], [two], [one, one], [one, two, two], [measurement(0, 1), two]):
        with pytest.raises(ValidationError, match="not the cases of one sweep"):
            merge(wrong)
    other = replace(two, parts=tuple(replace(part, candidate="another engine") for part in two.parts))
    loose = replace(two, parts=tuple(replace(part, tolerance=TOLERANCES["bf16"]) for part in two.parts))
    for unlike in (other, loose):
        with pytest.raises(ValidationError, match="not all compared alike"):
            merge([one, unlike])
    with pytest.raises(ValidationError, match="no case to compare"):
        merge([])


def test_evidence_survives_its_journey() -> None:
    comparison = Comparison(
        candidate=Scaled("candidate", -10_000),
        reference=Scaled("reference", 0),
        exact=None,
        tolerance=FP32,
        evidence=True,
    )
    found = measure_case([comparison], SIGNATURE, ROUGH)
    assert found.parts[0].masks
    assert CaseMeasurement.from_json(json.loads(json.dumps(found.to_json()))) == found
    (result,) = merge([found])
    assert sum(result.errors["masks"].counts) + result.errors["masks"].exact == MASKS.size
    assert result.masks[0].comparison == result.name


@pytest.mark.parametrize(
    "damage",
    [
        {"file": None},
        {"colour": "red"},
        {"provider": "tpu"},
        {"asked": {"sizes": {"batch": "1"}}},
        {"asked": {"sizes": {}, "values": "odd"}},
        {"place": {"number": 0.5, "total": 1}},
        {"seed": True},
        {"tolerance": {"logits": 1.0}},
    ],
    ids=str,
)
def test_a_damaged_task_is_refused(damage: dict[str, Any]) -> None:
    whole = CaseTask(file="x.onnx", asked=Case(sizes={"batch": 1}), tolerance=FP32).to_json()
    assert CaseTask.from_json(whole).tolerance == FP32
    with pytest.raises((TypeError, ValueError, KeyError)):
        CaseTask.from_json({**whole, **damage})


# What is drawn, and when


def test_small_cases_run_first_and_are_reported_in_order(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []

    def counting(signature: Signature, case: Case, seed: int = 0) -> dict[str, Array]:
        asked.append(dict(case.sizes))
        return make_feeds(signature, case, seed)

    monkeypatch.setattr("samdec_export.core.feeds.make_feeds", counting)
    result = api.validate(export().artifact.path, sweep="full").result
    order = [sizes["batch"] * (64 + sizes["points"]) for sizes in asked]  # 8 x 8 pixels, and points, of 32 channels
    assert order[:-1] == sorted(order[:-1])
    assert order[-1] == min(order), "the first one, whose float64 is measured for scale"
    assert asked != [dict(case.sizes) for case in result.cases]
    names = [case.name for case in sweep_of(export().artifact.path)]
    assert [case.case for case in result.cases] == names


def sweep_of(path: Path, width: SweepName = "full") -> list[Case]:
    from samdec_export.parity.sweeps import sweep_within

    assert open_artifact(path).record.signature in open_candidate(path).signatures
    return sweep_within(open_candidate(path).signatures, width)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that are drawn, each as often as it is."""
    names: list[str] = []

    def counting(signature: Signature, case: Case, seed: int = 0) -> Inputs:
        names.append(case.name)
        return make_feeds(signature, case, seed)

    for module in ("core.feeds", "parity.golden"):
        monkeypatch.setattr(f"samdec_export.{module}.make_feeds", counting)
    return names


FLOWS: dict[str, Callable[[Path, Path], Any]] = {
    "validate": lambda file, folder: api.validate(file, sweep="quick"),
    "record": lambda file, folder: api.record(file, out=folder / "tiny.npz"),
    "convert": lambda file, folder: api.convert(file, Conversion(precision="fp16", max_flips=0.9), out=folder),
    "run": lambda file, folder: api.run(
        None,
        {
            "model": "sam_tiny",
            "out": folder,
            "engines.build": [],
            "bench.enabled": False,
            "precisions": ["fp16", "bf16"],
        },
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_no_case_is_drawn_twice(export: Export, tmp_path: Path, drawn: list[str], flow: str) -> None:
    FLOWS[flow](export().artifact.path, tmp_path)
    names = {case.name for case in sweep_of(export().artifact.path, "quick")}
    assert sorted(drawn) == sorted(names)


def test_a_golden_draws_and_hashes_each_case_once(
    typed: Typed, export: Export, tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = api.record(export().artifact.path, out=tmp_path / "tiny.npz").path
    drawn.clear()
    hashed = []

    class Counting:
        def __init__(self) -> None:
            self.digest = hashlib.sha256()
            hashed.append(self)

        def update(self, data: bytes) -> None:
            self.digest.update(data)

        def hexdigest(self) -> str:
            return self.digest.hexdigest()

    monkeypatch.setattr("samdec_export.core.feeds.hashlib", SimpleNamespace(sha256=Counting))
    assert api.validate(typed("fp16"), golden=golden).result.passed
    assert len(drawn) == len({*drawn})
    assert len(hashed) == 2 * len(drawn) + REPEATED, "inputs, answers, and answers again"


def test_the_cache_keeps_what_it_has_room_for(export: Export, drawn: list[str]) -> None:
    signature = export().artifact.record.signature
    small, large = (NamedFeeds.of(signature, Case(sizes={"batch": batch, "points": 2})) for batch in (1, 3))
    size = sum(array.nbytes for array in small.make().values())
    kept, other = FeedsCache(room=size + 1).keep([small, large])
    drawn.clear()
    for case in (kept, other, kept, other):
        case.make()
    assert drawn == [small.name, large.name, large.name]
    ready = NamedFeeds("recorded", {}, dict)
    assert FeedsCache().keep([ready]) == [ready], "nothing is to be saved"
