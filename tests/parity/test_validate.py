from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from broken_graphs import (
    Damage,
    crop,
    drop_an_output,
    flip_signs_near_zero,
    lose_precision,
    make_nan,
    perturb_a_weight,
    swap_masks,
    swap_the_outputs,
)
from conftest import Export
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnx import TensorProto, helper

from samdec_export import api
from samdec_export.core.errors import GraphError, UsageError, ValidationError
from samdec_export.core.feeds import NamedFeeds
from samdec_export.core.results import ValidationResult
from samdec_export.core.runner import Feeds, Outputs, Runner
from samdec_export.core.signature import Signature, TensorSpec
from samdec_export.parity.measure import Comparison
from samdec_export.parity.metrics import best_mask_agreement, mask_metrics, tensor_metrics
from samdec_export.parity.tolerances import TOLERANCES
from samdec_export.parity.validate import validate

BROKEN: dict[str, tuple[Damage, str]] = {
    "perturbed weight": (perturb_a_weight, "relative error"),
    "NaN": (make_nan, "holds .* NaN or Inf"),
    "swapped masks": (swap_masks, "masks (relative error|mask IoU|flipped)"),
    "shifted logits": (flip_signs_near_zero, "masks"),
    "missing output": (drop_an_output, "outputs are .*'masks'.*not"),
    "swapped outputs": (swap_the_outputs, "outputs are .*'iou_predictions', 'masks'"),
    "another dtype": (lose_precision, "is float16, not float32"),
    "another shape": (crop, r"has shape \(.*31\), not"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_fails(export: Export, tmp_path: Path, kind: str) -> None:
    damage, message = BROKEN[kind]
    model = onnx.load(export().artifact.path)
    damage(model)
    onnx.save(model, tmp_path / "broken.onnx")
    validated = api.validate(tmp_path / "broken.onnx", sweep="quick")
    with pytest.raises(ValidationError, match=message) as caught:
        validated.require()
    assert f"validate {tmp_path / 'broken.onnx'} --seed 0 --sweep quick --case" in caught.value.advice
    assert not validated.to_json()["passed"]


def test_the_replayed_case_is_the_worst_one_again(export: Export, tmp_path: Path) -> None:
    model = onnx.load(export().artifact.path)
    perturb_a_weight(model)
    onnx.save(model, tmp_path / "broken.onnx")
    whole = api.validate(tmp_path / "broken.onnx", sweep="quick").result
    assert whole.worst is not None
    again = api.validate(tmp_path / "broken.onnx", sweep="quick", case=whole.worst.case).result
    assert [case.case for case in again.cases] == [whole.worst.case]
    assert again.cases[0].outputs[0].tensor.max_abs == pytest.approx(whole.worst.outputs[0].tensor.max_abs, rel=1e-3)


def test_other_weights_fail_even_where_nothing_else_differs(export: Export, tmp_path: Path) -> None:
    model = onnx.load(export().artifact.path)
    for entry in model.metadata_props:
        if entry.key.endswith("checkpoint"):
            entry.value = entry.value.replace('"weights_sha256": "', '"weights_sha256": "00')
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValidationError, match=r"the weights of .* are not those that other\.onnx was made from"):
        api.validate(tmp_path / "other.onnx", sweep="quick").require()


def test_a_changed_file_beside_its_sidecar_is_refused(export: Export, tmp_path: Path) -> None:
    artifact = export().artifact
    (tmp_path / artifact.sidecar.name).write_bytes(artifact.sidecar.read_bytes())
    model = onnx.load(artifact.path)
    perturb_a_weight(model)
    onnx.save(model, tmp_path / artifact.path.name)
    with pytest.raises(GraphError, match="it was changed or replaced"):
        api.validate(tmp_path / artifact.path.name)


RECORDS = {
    "graph": "nonsense",
    "masks": "best",
    "precision": "fp64",
    "model": "sam_x",
    "grid": "9",
    "mask_input": "true",
    "opset": '"x"',
    "tools": "[1]",
    "signature": '{"axes": [], "inputs": [], "outputs": []}',
    "choices": "[" * 100_000,
}


@pytest.mark.parametrize("field", RECORDS)
def test_a_record_that_contradicts_the_file_is_refused(export: Export, tmp_path: Path, field: str) -> None:
    model = onnx.load(export().artifact.path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == f"samdec_export.{field}")
    entry.value = RECORDS[field]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match=r"The record in .*m\.onnx (is|names)") as caught:
        api.validate(tmp_path / "m.onnx", sweep="quick")
    assert "not written by samdec-export" not in caught.value.advice


def test_a_file_of_another_maker_cannot_be_validated(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y])), tmp_path / "foreign.onnx")
    with pytest.raises(GraphError, match="carries no record"):
        api.validate(tmp_path / "foreign.onnx")
    assert api.inspect(tmp_path / "foreign.onnx").record is None


def test_there_is_no_such_case(export: Export) -> None:
    with pytest.raises(UsageError, match="There is no case 'batch=5'"):
        api.validate(export().artifact.path, case="batch=5")


def test_recorded_feeds_replace_the_sweep(export: Export, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"image_embeddings": (1, 32, 8, 8), "image_pe": (1, 32, 8, 8)}
    shapes |= {"sparse_prompt_embeddings": (2, 7, 32), "dense_prompt_embeddings": (2, 32, 8, 8)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "clicks.npz", **feeds)  # type: ignore[arg-type]
    validated = api.validate(export().artifact.path, feeds=tmp_path / "clicks.npz")
    assert [case.case for case in validated.result.cases] == ["clicks"]
    assert validated.result.passed
    assert "--feeds" in validated.replay


class Constant:
    """A runner that always answers the same."""

    name = "constant"

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def run(self, feeds: Feeds) -> Outputs:
        return self.outputs


SPECS = (
    TensorSpec(name="masks", dtype="float32", shape=(1, 2, 4, 4), content="masks"),
    TensorSpec(name="iou", dtype="float32", shape=(1, 2), content="scores"),
)
MASKS = np.linspace(-8, 8, 32, dtype=np.float32).reshape(1, 2, 4, 4)
SCORES = np.array([[0.25, 0.75]], np.float32)
CASE = NamedFeeds("c", {}, dict)


def result_of(masks: NDArray[np.float32], scores: NDArray[np.float32]) -> list[str]:
    (case,) = judged(Constant({"masks": masks, "iou": scores}), Constant({"masks": MASKS, "iou": SCORES})).cases
    return [violation.metric for violation in case.violations]


def test_every_metric_can_fail_on_its_own() -> None:
    assert result_of(MASKS, SCORES) == []
    assert result_of(MASKS + np.float32(0.01), SCORES) == ["relative error"]
    assert result_of(-MASKS, SCORES) == ["relative error", "mask IoU", "flipped pixels"]
    assert result_of(MASKS, SCORES[:, ::-1]) == ["relative error", "best mask kept"]
    assert result_of(MASKS[:, :, :3], SCORES) == ["structure"]
    assert result_of(np.where(MASKS > 7, np.float32(np.inf), MASKS), SCORES) == ["structure"]


def judged(
    candidate: Runner, reference: Runner, exact: Runner | None = None, cases: Sequence[NamedFeeds] = (CASE,)
) -> ValidationResult:
    comparison = Comparison(candidate=candidate, reference=reference, exact=exact, tolerance=TOLERANCES["fp32"])
    (result,) = validate([comparison], Signature(inputs=(), outputs=SPECS), cases)
    return result


def test_nothing_compared_is_a_failure() -> None:
    runner = Constant({"masks": MASKS, "iou": SCORES})
    with pytest.raises(ValidationError, match="no case to compare"):
        judged(runner, runner, cases=[])
    comparison = Comparison(candidate=runner, reference=runner, exact=None, tolerance=TOLERANCES["fp32"])
    (empty,) = validate([comparison], Signature(inputs=(), outputs=()), [CASE])
    assert not empty.passed


class ByCase(Constant):
    """A runner whose answers grow with the input."""

    def run(self, feeds: Feeds) -> Outputs:
        return {name: array * (1 + float(feeds["factor"])) for name, array in self.outputs.items()}


def test_the_references_own_rounding_bounds_the_tolerance_of_each_output() -> None:
    reference, exact = Constant({"masks": MASKS, "iou": SCORES}), Constant({"masks": MASKS * (1 + 2e-4), "iou": SCORES})
    candidate = Constant({"masks": MASKS * (1 - 2e-4), "iou": SCORES + np.float32(1e-4)})
    result = judged(candidate, reference, exact)
    assert result.floors["masks"].relative == pytest.approx(2e-4 / 2 / (1 + 2e-4), rel=1e-3)
    assert result.floors["iou"].relative == 0
    assert [(bad.output, bad.metric) for bad in result.cases[0].violations] == [("iou", "relative error")]


def test_rounding_is_measured_again_where_a_case_breaks_its_limit() -> None:
    reference, exact = Constant({"masks": MASKS, "iou": SCORES}), ByCase({"masks": MASKS, "iou": SCORES})
    cases = [NamedFeeds(f"c{factor}", {}, partial(dict, factor=np.float32(factor))) for factor in (0, 3e-4, 3e-5)]
    result = judged(Constant({"masks": MASKS * (1 - 3e-4), "iou": SCORES}), reference, exact, cases)
    assert [case.passed for case in result.cases] == [False, True, False], "a floor raises the limits of its own case"
    assert result.floors["masks"].case == "c0.0003"
    again = judged(Constant({"masks": MASKS * 0.9, "iou": SCORES}), reference, exact, cases)
    assert not any(case.passed for case in again.cases)


def test_one_run_serves_every_comparison() -> None:
    class Counting(Constant):
        runs = 0

        def run(self, feeds: Feeds) -> Outputs:
            self.runs += 1
            return super().run(feeds)

    one, other = (Counting({"masks": MASKS, "iou": SCORES}) for _ in range(2))
    pairs = [
        Comparison(candidate=a, reference=b, exact=None, tolerance=TOLERANCES["fp32"]) for a, b in ((one, other),) * 2
    ]
    results = validate(pairs, Signature(inputs=(), outputs=SPECS), [CASE, CASE], ("a finding",))
    assert (one.runs, other.runs) == (4, 2), "the candidate once more for each case, at the end"
    assert [result.passed for result in results] == [False, True], "findings belong to the first"


finite = npst.arrays(np.float32, (2, 3, 4), elements=st.floats(-1000, 1000, width=32))


@settings(deadline=None)
@given(finite, finite)
def test_tensor_metrics_equal_their_closed_forms(
    reference: NDArray[np.float32], candidate: NDArray[np.float32]
) -> None:
    ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
    found = tensor_metrics(reference, candidate)
    assert found.max_abs == np.abs(ref - cand).max()
    assert found.mean_abs == pytest.approx(np.abs(ref - cand).mean(), rel=1e-12)
    assert found.span == max(np.ptp(ref), np.abs(ref).max())
    norms = np.linalg.norm(ref) * np.linalg.norm(cand)
    if norms:
        assert found.cosine == pytest.approx((ref * cand).sum() / norms, rel=1e-9, abs=1e-12)
    rms = math.sqrt(((ref - cand) ** 2).mean())
    if rms and found.span:
        assert found.psnr == pytest.approx(20 * math.log10(found.span / rms), rel=1e-9, abs=1e-9)
    assert (found.psnr is None) == (rms == 0 or not found.span), "infinite, or no number at all"
    assert (found.relative is None) == (rms > 0 and not found.span)


@settings(deadline=None)
@given(finite, finite)
def test_mask_metrics_equal_their_definition(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> None:
    found = mask_metrics(reference, candidate)
    ious = []
    for ref, cand in zip(reference > 0, candidate > 0, strict=True):
        union = (ref | cand).sum()
        ious.append((ref & cand).sum() / union if union else 1.0)
    assert found.iou_min == min(ious)
    assert found.iou_mean == pytest.approx(np.mean(ious))
    assert found.flipped == pytest.approx(((reference > 0) != (candidate > 0)).mean())


def test_a_pixel_within_the_margin_is_undecided() -> None:
    reference, candidate = np.array([[1e-7, 1.0, -1.0, 2.0]]), np.array([[-1e-7, 1.0, -1.0, 2.0]])
    assert mask_metrics(reference, candidate).flipped == 0.25
    assert mask_metrics(reference, candidate, margin=1e-6).flipped == 0
    assert mask_metrics(reference, candidate, margin=1e-6).undecided == 0.25
    assert mask_metrics(reference, -candidate, margin=1e-6).flipped == 0.75


def test_best_mask_ties_are_either() -> None:
    reference = np.array([[0.5, 0.5000001, 0.1]])
    assert best_mask_agreement(reference, np.array([[0.6, 0.5, 0.1]])) == 0
    assert best_mask_agreement(reference, np.array([[0.6, 0.5, 0.1]]), margin=1e-5) == 1
    assert best_mask_agreement(reference, np.array([[0.1, 0.2, 0.9]]), margin=1e-5) == 0
