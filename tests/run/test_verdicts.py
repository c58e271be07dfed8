"""Verdicts: what each rule measures and allows, and that its sentence is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from samdec_export.core.results import (
    CaseResult,
    Limit,
    MaskMetrics,
    OutputMetrics,
    TensorMetrics,
    Tolerance,
    Violation,
)
from samdec_export.core.rules import RULES, violations_of
from samdec_export.core.signature import Content
from samdec_export.parity.tolerances import TOLERANCES, limit_of
from samdec_export.report.parts import Comparison, Verdict
from samdec_export.run.config import THRESHOLDS
from samdec_export.run.verdicts import judge_comparison

FP32 = TOLERANCES["fp32"]
CONTENTS: dict[str, Content] = {"masks": "masks", "iou_predictions": "scores"}
FINE = {"masks": 1e-7, "iou_predictions": 1e-7, "iou": 1.0, "flipped": 0.0, "flipped_most": 0.0, "best_mask": 1.0}


def outputs_of(**changes: float | None) -> tuple[OutputMetrics, OutputMetrics]:
    """Masks and scores with these metrics, and fine ones for the rest."""
    found = {**FINE, **changes}

    def tensor(relative: float | None) -> TensorMetrics:
        return TensorMetrics(max_abs=1.0, mean_abs=1.0, relative=relative, cosine=1.0, psnr=None, span=1.0)

    masks = MaskMetrics(
        iou_min=found["iou"] or 0.0,
        iou_mean=1.0,
        flipped=found["flipped"] or 0.0,
        flipped_most=int(found["flipped_most"] or 0),
        undecided=0.0,
    )
    return (
        OutputMetrics(name="masks", tensor=tensor(found["masks"]), masks=masks),
        OutputMetrics(name="iou_predictions", tensor=tensor(found["iou_predictions"]), best_mask=found["best_mask"]),
    )


def case_of(
    name: str, floors: Mapping[str, float] | None = None, tolerance: Tolerance = FP32, **changes: float | None
) -> CaseResult:
    """A case with these metrics, judged as a validation judges it."""
    return _judged(name, floors or {}, tolerance, outputs_of(**changes))


def broken_case(changes: Mapping[str, float | None]) -> CaseResult:
    return _judged("bad", {}, FP32, outputs_of(**changes))


def _judged(
    name: str, floors: Mapping[str, float], tolerance: Tolerance, outputs: tuple[OutputMetrics, ...]
) -> CaseResult:
    limits = {output: limit_of(tolerance, content, floors.get(output)) for output, content in CONTENTS.items()}
    violations = tuple(broken for item in outputs for broken in violations_of(item, tolerance, limits[item.name]))
    return CaseResult(case=name, sizes={}, passed=not violations, outputs=outputs, violations=violations, limits=limits)


def verdicts_on(*cases: CaseResult, tolerance: Tolerance = FP32) -> dict[str, Verdict]:
    """By threshold, for those of one comparison."""
    comparison = Comparison(
        artifact="a.onnx",
        candidate="engine",
        reference="eager",
        precision="fp32",
        passed=all(case.passed for case in cases),
        limits=tolerance,
        allowed={},
        floors={},
        cases=cases,
    )
    found = list(judge_comparison(comparison))
    assert len({verdict.threshold for verdict in found}) == len(found)
    return {verdict.threshold: verdict for verdict in found}


def test_every_key_of_the_gate_but_pixels_is_a_rule() -> None:
    assert {rule.key for rule in RULES} | {"pixels"} == {*THRESHOLDS}
    assert all(isinstance(getattr(FP32, key), int | float) for key in THRESHOLDS)


BREAKS: dict[str, dict[str, float | None]] = {
    "logits": {"masks": 2e-5},
    "iou_predictions": {"iou_predictions": 2e-5},
    "iou": {"iou": 0.5, "flipped_most": 9},
    "flipped": {"flipped": 0.5, "flipped_most": 9},
    "best_mask": {"best_mask": 0.5},
}


@pytest.mark.parametrize("key", BREAKS)
def test_each_rule_fails_alone_in_the_case_and_in_the_gate(key: str) -> None:
    rule = next(rule for rule in RULES if rule.key == key)
    good, bad = case_of("good"), broken_case(BREAKS[key])
    assert good.passed
    assert [violation.metric for violation in bad.violations] == [rule.metric]
    verdicts = verdicts_on(good, bad)
    failed = [verdict for verdict in verdicts.values() if not verdict.passed]
    assert [verdict.threshold for verdict in failed] == [f"gate.fp32.{key}"]
    assert (failed[0].case, failed[0].allowed) == ("bad", getattr(FP32, key))
    assert failed[0].sentence.endswith("1 of 2 cases fail.")


@pytest.mark.parametrize("key", ["logits", "iou_predictions"])
def test_what_is_no_number_fails(key: str) -> None:
    output = {"logits": "masks"}.get(key, key)
    bad = broken_case({output: None})
    assert bad.violations[0].severity is None
    verdict = verdicts_on(case_of("good"), bad)[f"gate.fp32.{key}"]
    assert (verdict.passed, verdict.measured) == (False, None)
    assert "is no finite number in case bad" in verdict.sentence
    assert verdicts_on(bad)["structure"].passed, "its outputs are there and finite"


def test_small_masks_are_judged_by_pixels() -> None:
    tolerance = replace(FP32, pixels=4)
    case = case_of("small", tolerance=tolerance, iou=0.5, flipped=0.5, flipped_most=4)
    assert case.passed
    verdicts = verdicts_on(case, tolerance=tolerance)
    assert all(verdict.passed for verdict in verdicts.values())
    assert "which gate.fp32.pixels waives: no more than 4 pixels" in verdicts["gate.fp32.iou"].sentence
    assert not case_of("small", tolerance=tolerance, iou=0.5, flipped=0.5, flipped_most=5).passed


def test_a_case_that_its_floor_let_pass_says_so() -> None:
    rough = case_of("rough", {"masks": 1e-3}, masks=3e-3)
    verdicts = verdicts_on(case_of("plain"), rough)
    verdict = verdicts["gate.fp32.logits"]
    assert verdict.passed
    assert (verdict.measured, verdict.allowed) == (3e-3, 4e-3)
    assert verdict.sentence == (
        "a.onnx (engine against eager): largest error of masks is 0.003, in case rough; gate.fp32.logits asks for at "
        "most 1e-05, and was raised to as much as 0.004 in 1 of 2 cases: in case rough eager fp32 is itself 0.001 of "
        "the span from fp64."
    )
    assert "leaves pixels undecided within 0.004 of the span in 1 of 2 cases" in verdicts["gate.fp32.iou"].sentence
    for key in ("iou_predictions", "best_mask"):
        assert "in case rough eager" not in verdicts[f"gate.fp32.{key}"].sentence
    plain = verdicts_on(case_of("plain"))
    assert not any("span" in verdict.sentence for verdict in plain.values())


def test_a_case_that_fails_in_spite_of_its_floor_says_by_how_much() -> None:
    verdict = verdicts_on(case_of("plain"), case_of("rough", {"masks": 1e-3}, masks=8e-3))["gate.fp32.logits"]
    assert not verdict.passed
    assert "at most 0.004 (raised from 1e-05: eager fp32 is itself 0.001 of the span" in verdict.sentence
    assert "2 times as much; 1 of 2 cases fail" in verdict.sentence
    best = verdicts_on(case_of("scores", {"iou_predictions": 1e-2}, best_mask=1.0))["gate.fp32.best_mask"]
    assert "takes scores within 0.04 for equal in 1 of 1 cases" in best.sentence


def test_another_case_is_not_given_that_limit() -> None:
    """The largest limit of a comparison must not cover a case that was judged by a smaller one."""
    plain, rough = case_of("plain", masks=2e-5), case_of("rough", {"masks": 1e-3}, masks=1e-3)
    verdict = verdicts_on(plain, rough)["gate.fp32.logits"]
    assert (verdict.passed, verdict.case, verdict.allowed) == (False, "plain", FP32.logits)


def test_limits_of_the_floor() -> None:
    assert limit_of(FP32, "masks", None) == Limit(relative=1e-5, margin=1e-5)
    assert limit_of(FP32, "masks", 1e-7).relative == FP32.logits
    fp16 = limit_of(TOLERANCES["fp16"], "masks", 1e-3)
    assert (fp16.relative, fp16.margin) == (TOLERANCES["fp16"].logits, 4e-3), "each as it needs"


@pytest.mark.parametrize("metric", ["reference", "undecided pixels"])
def test_a_case_without_a_reference_fails_though_every_number_is_fine(metric: str) -> None:
    doubt = Violation(output="masks", metric=metric, detail="0.5 > 0.1", value=0.5, limit=0.1)
    found = verdicts_on(case_of("good"), replace(case_of("flat"), passed=False, violations=(doubt,)))
    assert [name for name, verdict in found.items() if not verdict.passed] == ["structure"]
    assert "case flat: masks 0.5 > 0.1; 1 of 2 cases are like that" in found["structure"].sentence
