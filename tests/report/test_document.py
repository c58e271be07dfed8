"""The document of a report: what it promises to whoever reads its JSON."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from command_line import call, is_one_clear_line
from conftest import GOLDEN
from pydantic import TypeAdapter

from samdec_export.core.errors import UsageError
from samdec_export.core.masks import pack_mask, unpack_mask
from samdec_export.core.results import Histogram
from samdec_export.report import render as reports
from samdec_export.report.case_charts import case_charts
from samdec_export.report.charts import LogScale, errors_chart
from samdec_export.report.document import SCHEMA_VERSION, Document
from samdec_export.report.figures import bounded, closeness, number, percent, seconds, size, used
from samdec_export.report.parts import Verdict
from samdec_export.report.views import closest, failed, output_rows, timing_rows, usage

RENDERINGS: tuple[reports.ReportFormat, ...] = ("json", "html", "markdown", "junit")


def test_a_document_comes_back_as_it_was(passing: Document, failing: Document) -> None:
    for document in (passing, failing):
        data = json.loads(json.dumps(document.to_json(), allow_nan=False))
        again = Document.from_json(data)
        assert again.to_json() == data
        for wanted in RENDERINGS:
            assert reports.render(again, wanted) == reports.render(document, wanted), wanted


def test_real_runs_say_what_happened(passing: Document, failing: Document) -> None:
    assert passing.passed
    assert not failed(passing)
    broken = failed(failing)
    assert {verdict.artifact for verdict in broken} == {"broken.onnx"}
    assert {verdict.threshold for verdict in broken} == {f"gate.fp32.{key}" for key in ("logits", "iou", "flipped")}
    assert failing.worst_masks[0].flipped > 0


def derive_schema() -> dict[str, Any]:
    """Return the schema that the data classes have: what the published one must be."""
    schema = TypeAdapter(Document).json_schema()
    schema["required"] = ["schema_version", *schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:samdec-export:report:{SCHEMA_VERSION}",
        **schema,
    }


def test_the_schema_is_what_the_data_classes_have() -> None:
    again = f"json.dump(derive_schema(), ...) into samdec_export/report/{reports.SCHEMA_FILE}; a version only grows"
    assert f"report.v{SCHEMA_VERSION}.schema.json" == reports.SCHEMA_FILE
    assert reports.schema() == derive_schema(), again


def test_documents_keep_the_schema(passing: Document, failing: Document) -> None:
    validator = jsonschema.Draft202012Validator(reports.schema())
    validator.check_schema(reports.schema())
    for document in (passing, failing):
        validator.validate(json.loads(json.dumps(document.to_json())))


def drop_a_field(data: dict[str, Any]) -> None:
    del data["verdicts"][0]["sentence"]


def text_for_a_number(data: dict[str, Any]) -> None:
    data["artifacts"][0]["bytes"] = "many"


def text_for_a_verdict(data: dict[str, Any]) -> None:
    data["passed"] = "yes"


def unknown_status(data: dict[str, Any]) -> None:
    data["stages"][0]["status"] = "perhaps"


def other_version(data: dict[str, Any]) -> None:
    data["schema_version"] = 3


def no_version(data: dict[str, Any]) -> None:
    del data["schema_version"]


def list_for_an_object(data: dict[str, Any]) -> None:
    data["provenance"] = []


DAMAGES = (
    drop_a_field,
    text_for_a_number,
    text_for_a_verdict,
    unknown_status,
    other_version,
    no_version,
    list_for_an_object,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_no_document_is_refused_by_the_reader_and_the_schema(
    passing: Document, damage: Callable[[dict[str, Any]], None]
) -> None:
    data = copy.deepcopy(passing.to_json())
    damage(data)
    with pytest.raises(UsageError):
        Document.from_json(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(data)), reports.schema())


def cut_mask(data: dict[str, Any]) -> None:
    data["worst_masks"][0]["reference"] = "AAAA"


def no_base64(data: dict[str, Any]) -> None:
    data["worst_masks"][0]["candidate"] = "!" + data["worst_masks"][0]["candidate"][1:]


def flat_mask(data: dict[str, Any]) -> None:
    data["worst_masks"][0] |= {"height": 0, "reference": "", "candidate": ""}


def bins_without_edges(data: dict[str, Any]) -> None:
    data["comparisons"][0]["errors"]["masks"]["counts"].append(1)


def edges_that_turn_back(data: dict[str, Any]) -> None:
    data["comparisons"][0]["errors"]["masks"]["edges"].reverse()


def infinite_edges(data: dict[str, Any]) -> None:
    data["comparisons"][0]["errors"]["masks"]["edges"][0] = -400


def case_that_passed_in_spite_of_all(data: dict[str, Any]) -> None:
    violation = {"output": "masks", "metric": "relative error", "detail": "2 > 1"}
    data["comparisons"][0]["cases"][0]["violations"] = [violation]


def not_a_number(data: dict[str, Any]) -> None:
    data["verdicts"][0]["measured"] = math.nan


INCONSISTENT = (
    *(cut_mask, no_base64, flat_mask, bins_without_edges, edges_that_turn_back, infinite_edges),
    *(case_that_passed_in_spite_of_all, not_a_number),
)


@pytest.mark.parametrize("damage", INCONSISTENT, ids=lambda damage: damage.__name__)
def test_what_contradicts_itself_is_refused(passing: Document, damage: Callable[[dict[str, Any]], None]) -> None:
    data = copy.deepcopy(passing.to_json())
    damage(data)
    with pytest.raises(UsageError, match="This is no report of samdec-export"):
        Document.from_json(data)


def test_a_reader_ignores_what_a_later_one_added(passing: Document) -> None:
    data = copy.deepcopy(passing.to_json())
    data["colour"] = "green"
    data["artifacts"][0]["colour"] = {"of": ["the", "file"]}
    jsonschema.validate(json.loads(json.dumps(data)), reports.schema())
    assert Document.from_json(data).to_json() == passing.to_json()


def test_documents_of_version_1_can_still_be_read() -> None:
    document = reports.read(GOLDEN / "report_v1.json")
    assert not document.passed
    first = json.loads((GOLDEN / "report_v1.json").read_text())
    assert first["schema_version"] == 1
    assert document.comparisons[0].limits.logits == first["comparisons"][0]["limits"]["relative"]
    jsonschema.validate(json.loads(json.dumps(document.to_json())), reports.schema())
    assert all(reports.render(document, wanted) for wanted in RENDERINGS)


@pytest.mark.parametrize("scores", [None, 0.5])
def test_limits_of_version_1_have_the_names_of_the_gate(scores: float | None) -> None:
    data = json.loads((GOLDEN / "report_v1.json").read_text())
    for comparison in data["comparisons"]:
        comparison["limits"] |= {"relative": 0.25, "scores": scores}
    limits = Document.from_json(data).comparisons[0].limits
    assert (limits.logits, limits.iou_predictions) == (0.25, 0.25 if scores is None else scores)


@pytest.mark.parametrize("comparisons", [None, 3, [3], [{}], [{"limits": None}], [{"limits": {"relative": "much"}}]])
def test_damaged_documents_of_version_1_are_refused(comparisons: Any) -> None:
    data = json.loads((GOLDEN / "report_v1.json").read_text())
    with pytest.raises(UsageError, match="This is no report of samdec-export: comparisons"):
        Document.from_json({**data, "comparisons": comparisons})


def test_a_document_with_nothing_in_it_renders(passing: Document) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("stages", "artifacts", "comparisons", "verdicts", "worst_masks", "ranges", "notes"), ()
    )
    empty = replace(passing, **nothing, latency=None)
    assert all(reports.render(empty, wanted) for wanted in RENDERINGS)


def test_infinite_numbers_become_null(passing: Document) -> None:
    infinite = replace(passing.verdicts[0], measured=math.inf, allowed=math.nan)
    document = replace(passing, verdicts=(infinite,))
    verdict = document.to_json()["verdicts"][0]
    assert (verdict["measured"], verdict["allowed"]) == (None, None)
    assert all(reports.render(document, wanted) for wanted in RENDERINGS)


def test_masks_are_packed_bit_by_bit() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]], np.bool_)
    assert base64.b64decode(pack_mask(mask)) == bytes([0b10001001, 0b10000000])
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (32, 32)):
        mask = rng.random((height, width)) > 0.5
        assert np.array_equal(unpack_mask(pack_mask(mask), height, width), mask)


def verdict_of(measured: float | None, allowed: float, bound: Any) -> Verdict:
    return Verdict(
        passed=True, threshold="t", artifact="a", measured=measured, allowed=allowed, bound=bound, sentence=""
    )


def test_usage_is_the_part_of_what_is_allowed() -> None:
    assert usage(verdict_of(0.25, 1.0, "at most")) == 0.25
    assert usage(verdict_of(0.98, 0.9, "at least")) == pytest.approx(0.2)
    assert usage(verdict_of(1.0, 1.0, "at least")) == 0
    assert usage(verdict_of(0.9, 1.0, "at least")) == math.inf
    assert usage(verdict_of(None, 1.0, "at most")) is None
    assert usage(verdict_of(0.5, 1.0, None)) is None


def test_the_nearest_to_a_limit_come_first(passing: Document) -> None:
    used = [usage(verdict) for verdict in closest(passing, 100)]
    assert used == sorted(used, key=lambda share: share or 0.0, reverse=True)
    assert len(used) == sum(verdict.bound is not None for verdict in passing.verdicts) > 16


def test_the_worst_of_each_output_is_over_all_cases(failing: Document) -> None:
    for comparison in failing.comparisons:
        for row in output_rows(comparison):
            errors = {
                case.case: output.tensor.relative
                for case in comparison.cases
                for output in case.outputs
                if output.name == row.output
            }
            assert row.relative == max(error for error in errors.values() if error is not None)
            assert errors[row.worst_case] == row.relative
    assert [row.passed for row in output_rows(failing.comparisons[0])] == [False, True]


def test_times_stand_beside_their_baseline(passing: Document) -> None:
    assert passing.latency is not None
    rows = timing_rows(passing.latency)
    assert [row.change for row in rows[:3]] == pytest.approx([1 / 1.02 - 1] * 3)
    assert all(row.change is None for row in rows[3:])


def test_a_log_scale_holds_every_value() -> None:
    scale = LogScale.over([3e-7, 2e-3, 0.0, None], 100.0, 200.0)
    assert (scale.low, scale.high) == (-7, -2)
    assert scale.at(1e-7) == 100
    assert scale.at(1e-2) == 200
    assert scale.at(10**-4.5) == pytest.approx(150)
    assert (scale.at(0.0), scale.at(None), scale.at(math.inf)) == (100, 200, 200)
    assert [tick.label for tick in scale.ticks(6)] == ["1e-7", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]
    assert len(scale.ticks(3)) <= 3


def test_what_fails_in_a_chart_is_beyond_its_limit(failing: Document) -> None:
    crossed = 0
    for comparison in failing.comparisons:
        for chart in case_charts(comparison):
            assert chart.limit is not None
            assert len(chart.rows) == len(comparison.cases)
            for row in chart.rows:
                assert row.failed == (row.x > chart.limit.at)
                crossed += row.failed
    cases = len(failing.comparisons[0].cases)
    assert cases < crossed <= 2 * cases, "every case of the broken file by error, and nearly all by pixels"


def test_a_chart_of_errors_is_as_high_as_its_counts() -> None:
    chart = errors_chart("masks", Histogram(edges=(-4, -3, -2, -1, 0), counts=(0, 10, 5, 0), exact=5))
    assert chart is not None
    assert [bar.height for bar in chart.bars] == [chart.base - 18, (chart.base - 18) / 2]
    assert "20 values: 25% exact" in chart.summary
    assert errors_chart("masks", Histogram(edges=(-1, 0), counts=(0,), exact=7)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(0.0123456), "0.0123"),
        (number(0.00123), "1.2e-3"),
        (number(-4.5e-7), "-4.5e-7"),
        (number(1e-5), "1e-5"),
        (number(0), "0"),
        (number(65504), "65504"),
        (number(1.8e30), "1.8e30"),
        (number(None), "-"),
        (number(math.inf), "-"),
        (closeness(0.9999999), "0.999999"),
        (closeness(1.0), "1"),
        (closeness(0.0), "0"),
        (closeness(1e308), "1e308"),
        (bounded(0.9999, "at least"), "0.9999"),
        (bounded(0.003, "at most"), "3e-3"),
        (percent(0.123), "12.3%"),
        (percent(4.069e-5), "0.00407%"),
        (percent(0.0), "0%"),
        (used(0.33), "33%"),
        (used(17530.2), "17,530 times"),
        (seconds(0.00083), "830 us"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(4.56), "4.56 s"),
        (seconds(200), "3 min 20 s"),
        (size(812), "812 B"),
        (size(34_000), "34 kB"),
        (size(16_300_000), "16.3 MB"),
    ],
)
def test_figures(text: str, expected: str) -> None:
    assert text == expected


def test_the_command_renders_again(
    failing: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.json").write_text(json.dumps(failing.to_json()))
    words = ("report", "report.json", "--html", "x.html", "--markdown", "x.md", "--junit", "x.xml")
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    broken = failed(failing)
    assert out.startswith("FAILED: broken.onnx (onnxruntime")
    assert f"{len(failing.verdicts) - 3} of {len(failing.verdicts)} thresholds hold" in out
    assert len(broken) == 3
    assert "Wrote x.html" in out
    for name, wanted in (("x.html", "html"), ("x.md", "markdown"), ("x.xml", "junit")):
        assert Path(name).read_text() == reports.render(failing, wanted)  # type: ignore[arg-type]  # a str of three
    code, out, _ = call(capsys, *words, "--json")
    assert json.loads(out)["written"] == ["x.html", "x.md", "x.xml"]
    code, out, _ = call(capsys, "report", "--schema")
    assert (code, json.loads(out)) == (0, reports.schema())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\xff", "is no JSON"),
        (f'{{"schema_version": {10**400}}}', "is no JSON"),
        ("[]", "no JSON object with a schema_version"),
        ('{"schema_version": 1}', "Field required"),
        ('{"schema_version": 9}', "has schema version 9"),
    ],
)
def test_what_is_no_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "report.json").write_bytes(content.encode("latin-1"))
    code, _, err = call(capsys, "report", tmp_path / "report.json", "--html", tmp_path / "x.html")
    assert (code, is_one_clear_line(err)) == (2, True)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_report_is_not_written_over_its_source(
    passing: Document, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "report.json"
    source.write_text(text := json.dumps(passing.to_json()))
    code, _, err = call(capsys, "report", source, "--html", tmp_path / "x.html", "--markdown", source)
    assert (code, "is an input of this run" in err) == (2, True)
    assert source.read_text() == text
    assert [*tmp_path.iterdir()] == [source]
    assert call(capsys, "report", tmp_path / "none.json")[0] == 2
    assert call(capsys, "report", source, "--html", tmp_path)[0] == 2
