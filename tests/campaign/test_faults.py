"""The gate finds what is wrong on purpose, and passes what is right.

Each fault is judged by the sweep that must find it: quick, or full for those whose row in the table says that quick has
no case for them. `scripts/campaign` judges all of them by both, and many more files that are right. In bf16 a right
file can fail a full sweep by one small mask: that case does not count as finding a fault.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from edited_graph import Fault
from faults import FAULTS, KINDS, STATES
from judging import Judge, tilt_shares
from shared import made_once

from samdec_export import api
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.options import GraphOptions, SweepName
from samdec_export.models.checkpoint import load_model
from samdec_export.precision.options import Conversion

JudgeOf: TypeAlias = Callable[..., Judge]
File: TypeAlias = tuple[str, str, str]

FILES: list[File] = [*dict.fromkeys((fault.model, fault.graph, fault.precision) for fault in FAULTS)]
QUICK_SHARE = 0.9
LOW: tuple[LowPrecision, ...] = ("fp16", "bf16")


@pytest.fixture(scope="session")
def judge_of(typed: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> JudgeOf:
    """Judges of right files."""
    folder = tmp_path_factory.mktemp("edited")

    def toy(out: Path) -> list[str]:
        made = api.export(None, "sam_toy", options=GraphOptions(), out=out, validate=False).artifact.path
        low = [api.convert(made, Conversion(precision=name), out=out, validate=False) for name in LOW]
        return [made.name, *(done.artifact.path.name for done in low)]

    def path(model: str, graph: str, precision: str) -> Path:
        if model == "sam_tiny":
            options = {} if graph == "decoder" else {"graph": graph, "mask_input": graph == "prompts"}
            return typed(precision, **options)
        made, names = made_once(tmp_path_factory, "sam_toy decoder", toy)
        return made / names[["fp32", *LOW].index(precision)]

    @functools.cache
    def judge(model: str, graph: str, precision: str, seed: int = 0) -> Judge:
        return Judge(path(model, graph, precision), load_model(None, model), folder, seed)

    return judge


@pytest.mark.parametrize("file", FILES, ids=" ".join)
def test_every_fault_of_a_file_is_found_and_the_file_itself_passes(file: File, judge_of: JudgeOf) -> None:
    judge = judge_of(*file)
    assert judge.judge(judge.own).passed
    assert not judge.alarms or file[-1] == "bf16"
    faults = [fault for fault in FAULTS if (fault.model, fault.graph, fault.precision) == file]
    missed = [fault.title for fault in faults if not judge.finds(judge.edited(fault.edit), _width(fault))]
    assert not missed


def _width(fault: Fault) -> SweepName:
    return "full" if fault.full else "quick"


def test_quick_finds_nine_of_ten_and_every_kind_has_some() -> None:
    by_kind = Counter(fault.kind for fault in FAULTS)
    assert len(FAULTS) == len({fault.title for fault in FAULTS}) >= 90
    assert min(by_kind[kind] for kind in KINDS) >= 20
    assert sum(not fault.full for fault in FAULTS) >= QUICK_SHARE * len(FAULTS)


def test_answers_that_depend_on_what_ran_before_are_found(judge_of: JudgeOf) -> None:
    judge = judge_of("sam_tiny", "prompts", "fp32")
    assert not [name for name, state in STATES.items() if judge.judge(state(judge.own)).passed]


@pytest.mark.parametrize(
    ("title", "width"),
    [
        ("sizes: 11 points (sam_tiny decoder fp32)", "quick"),
        ("sizes: batch 45 (sam_tiny decoder fp32)", "full"),
        ("meanings: a box after its clicks (sam_tiny prompts fp32)", "quick"),
        ("values: image_embeddings held within 50 (sam_tiny decoder fp32)", "quick"),
        ("values: mask inputs of zeros and ones (sam_tiny prompts fp32)", "quick"),
        ("mix-ups: all prompts answered with the first image (sam_tiny prompts fp32)", "quick"),
    ],
)
def test_without_the_cases_that_ask_it_a_fault_is_not_found(title: str, width: SweepName, judge_of: JudgeOf) -> None:
    fault = next(fault for fault in FAULTS if fault.title == title)
    judge = judge_of(fault.model, fault.graph, fault.precision)
    runner = judge.edited(fault.edit)
    asking = [case.case for case in judge.judge(runner, width).cases if not case.passed]
    assert 0 < len(asking) < len(judge.cases(width))
    assert judge.judge(runner, width, without=asking).passed


@pytest.mark.parametrize("precision", LOW)
def test_a_bias_within_every_limit_is_found_by_its_direction_alone(precision: str, judge_of: JudgeOf) -> None:
    judge = judge_of("sam_tiny", "decoder", precision)
    faults = [fault for fault in FAULTS if fault.name == "scores 0.009 too large" and fault.precision == precision]
    result = judge.judge(judge.edited(faults[0].edit))
    assert all(case.passed for case in result.cases)
    assert result.findings
    assert not result.passed


@pytest.mark.parametrize("precision", ["fp32", *LOW])
@pytest.mark.parametrize("model", ["sam_tiny", "sam_toy"])
def test_a_right_file_passes_with_inputs_of_any_seed(model: str, precision: str, judge_of: JudgeOf) -> None:
    for seed in range(1, 4):
        judge = judge_of(model, "decoder", precision, seed)
        result = judge.judge(judge.own)
        assert result.passed, (result.findings, result.worst)
        assert max(tilt_shares(result).values()) < 1
