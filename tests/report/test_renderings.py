"""What a report is rendered as: read back with parsers that are not ours."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from samdec_export.core.errors import UsageError
from samdec_export.core.masks import pack_mask, unpack_mask
from samdec_export.core.results import Limit
from samdec_export.report.case_charts import case_charts
from samdec_export.report.document import Document
from samdec_export.report.github import announce, workflow_commands
from samdec_export.report.html import to_html
from samdec_export.report.junit import to_junit
from samdec_export.report.markdown import LARGEST, to_markdown
from samdec_export.report.masks import COLOURS, draw_masks
from samdec_export.report.parts import Stage, Verdict
from samdec_export.report.views import failed, headline

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;|`*_[a](b)\n::error::x\n# @someone #1 {{ 7*7 }}"
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


def poisoned(document: Document) -> Document:
    """The same document with a hostile text in the place of every free one."""
    fixed = {"schema_version", "kind", "status", "bound", "created", "reference", "candidate"}

    def poison(value: Any, key: str = "") -> Any:
        match value:
            case dict():
                return {key: poison(item, key) for key, item in value.items()}
            case list():
                return [poison(item, key) for item in value]
            case str() if key not in fixed:
                return HOSTILE
            case _:
                return value

    data = poison(document.to_json())
    for comparison in data["comparisons"]:
        comparison |= {
            "reference": HOSTILE,
            "candidate": HOSTILE,
            "floors": {HOSTILE: {"relative": 1.0, "case": HOSTILE}},
        }
        comparison["allowed"] = {HOSTILE: 1.0}
    data["provenance"]["config"] = {HOSTILE: [HOSTILE]}
    data["provenance"]["tools"] = {HOSTILE: HOSTILE}
    data["artifacts"][0] |= {"operators": {HOSTILE: 1}, "products": {HOSTILE: 0.5}, "kept": {HOSTILE: HOSTILE}}
    return Document.from_json(data)


def grown(document: Document, times: int) -> Document:
    """A document many times as long."""
    broken = Verdict(passed=False, threshold="relative error", artifact="a" * 80, sentence="It is too far off. " * 20)
    return replace(
        document,
        passed=False,
        verdicts=(broken,) * 10 * times,
        comparisons=document.comparisons * times,
        artifacts=document.artifacts * times,
        worst_masks=document.worst_masks * times,
        ranges=document.ranges * 5,
    )


class Page(HTMLParser):
    """The elements of a page, in order, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def documents(*found: Document) -> Iterator[Document]:
    for document in found:
        yield document
        yield poisoned(document)


def test_the_page_is_well_formed_and_needs_nothing_else(passing: Document, failing: Document) -> None:
    for document in documents(passing, failing):
        text = to_html(document)
        page = Page(text)
        assert not page.of("script", "link", "iframe", "object", "form", "base")
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
        assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.of("img"))
        assert all((link["href"] or "").startswith("#") for link in page.of("a"))
        assert "url(" not in text
        assert "@import" not in text
        (policy,) = (meta["content"] for meta in page.of("meta") if "content" in meta and "http-equiv" in meta)
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert len(text.encode()) < 450_000


def test_hostile_texts_stay_texts(failing: Document) -> None:
    clean, hostile = Page(to_html(failing)), Page(to_html(poisoned(failing)))
    assert HOSTILE in hostile.text, "as it is, its braces too"
    assert Counter(tag for tag, _ in hostile.elements)["img"] == len(clean.of("img"))
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in clean.elements} | {"br"}


def test_the_page_says_the_verdict_first(passing: Document, failing: Document) -> None:
    for document, word in ((passing, "✓ Passed"), (failing, "✗ Failed")):
        text = Page(to_html(document)).text
        assert text.index(word) < text.index(headline(document)) < text.index("Artifacts")
        for verdict in failed(document):
            assert verdict.sentence in text
        for artifact in document.artifacts:
            assert artifact.sha256 in text
        assert document.command in text


def test_the_page_can_be_read_without_eyes(failing: Document) -> None:
    page = Page(to_html(failing))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.of("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.of("img"))
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in page.of("svg"))
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))
    assert all(
        box.get("aria-label") and box["tabindex"] == "0" for box in page.of("div") if box.get("role") == "region"
    )
    names = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(names.values()) == {1}
    assert {(link["href"] or "")[1:] for link in page.of("a")} <= {*names}


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_of_text_can_be_read_on_its_ground(passing: Document) -> None:
    schemes = re.findall(r":root \{(.*?)\}", to_html(passing), re.DOTALL)
    assert len(schemes) == 3, "light, dark, print"
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        pairs = [(text, ground) for text in ("text", "muted", "accent", "good", "bad", "open") for ground in ("page",)]
        pairs += [
            ("muted", "card"),
            ("text", "card"),
            ("good", "good-card"),
            ("bad", "bad-card"),
            ("open", "open-card"),
        ]
        pairs += [("text", "good-card"), ("text", "bad-card")]
        for text, ground in pairs:
            dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_a_long_report_stays_small(failing: Document) -> None:
    assert len(to_html(grown(failing, 10)).encode()) < 2_000_000
    first = failing.comparisons[0]
    swept = replace(first, cases=first.cases * 100)
    noise = pack_mask(np.random.default_rng(0).random((1024, 1024)) > 0.5)
    large = replace(failing.worst_masks[0], height=1024, width=1024, reference=noise, candidate=noise)
    document = replace(failing, comparisons=(swept,) * 7, worst_masks=(failing.worst_masks[0], large, large))
    text = to_html(document)
    assert len(text.encode()) < 1_500_000
    assert "the worst 40 of 2500 cases" in text
    assert "2440 more in the report&#39;s JSON" in text.replace("'", "&#39;")
    assert len(Page(text).of("img")) == 3, "the masks that have room"


def test_a_case_that_its_floor_let_pass_says_so(passing: Document) -> None:
    first = passing.comparisons[0]
    case = first.cases[0]
    limits = {"masks": Limit(relative=0.25, margin=0.25, floor=0.0625), **dict([*case.limits.items()][1:])}
    rough = replace(first, cases=(replace(case, limits=limits), *first.cases[1:]), allowed={"masks": 0.25})
    note = "(the reference is itself 0.0625 from float64 here: 0.25 is allowed)"
    assert note in Page(to_html(replace(passing, comparisons=(rough,)))).text
    assert "from float64 here" not in Page(to_html(passing)).text
    for comparison in (first, rough):
        chart = case_charts(comparison)[0]
        assert chart.limit is not None
        assert chart.limit.label == "allowed 1e-5", "what is asked of every case"


def test_masks_are_drawn_pixel_by_pixel(failing: Document) -> None:
    pair = failing.worst_masks[0]
    narrow = replace(pair, height=2, width=5, reference="+AA=", candidate="DwA=")
    for item in (pair, narrow):
        right, judged = (unpack_mask(text, item.height, item.width) for text in (item.reference, item.candidate))
        kinds = np.where(right & judged, "both", np.where(right, "lost", np.where(judged, "gained", "outside")))
        expected = [np.where(right, "inside", "outside"), np.where(judged, "inside", "outside"), kinds]
        for url, names in zip(draw_masks(item), expected, strict=True):
            picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
            wanted = [[tuple(bytes.fromhex(COLOURS[name][1:])) for name in row] for row in names.tolist()]
            assert np.array_equal(np.asarray(picture), np.array(wanted))


JUNIT = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "timestamp"},
    "testcase": {"classname", "name"},
    "failure": {"message", "type"},
    "skipped": {"message"},
}
"""The attributes that we write; all are in the schema of Jenkins' xunit plugin, junit-10.xsd."""


def test_junit_has_a_test_for_each_case_and_threshold(passing: Document, failing: Document) -> None:
    for document in documents(passing, failing):
        root = ElementTree.fromstring(to_junit(document).encode())
        assert root.tag == "testsuites"
        suites = {suite.get("name"): suite for suite in root}
        assert [*suites] == ["thresholds", "comparisons", "run"]
        assert len(suites["thresholds"]) == len(document.verdicts)
        assert len(suites["comparisons"]) == sum(len(item.cases) + len(item.findings) for item in document.comparisons)
        names = [(test.get("classname"), test.get("name")) for test in root.iter("testcase")]
        assert len(set(names)) == len(names), "GitLab shows only the first of one name"
        for element in (root, *root):
            tests = [*element.iter("testcase")]
            assert element.get("tests") == str(len(tests))
            for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))[
                : 3 - (element is root)
            ]:
                assert element.get(kind) == str(sum(test.find(tag) is not None for test in tests))
        for suite in root:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp") or "")
        assert all(set(element.attrib) == JUNIT[element.tag] for element in root.iter())
        assert (root.get("failures") == "0") == document.passed


def test_junit_says_why(failing: Document) -> None:
    root = ElementTree.fromstring(to_junit(failing))
    messages = [failure.get("message") for failure in root.iter("failure")]
    assert [verdict.sentence for verdict in failing.verdicts if not verdict.passed] == messages[:3]
    assert all("broken.onnx" in (message or "") for message in messages)
    classes = {(test.get("classname") or "").rpartition(".")[2] for test in root.iter("testcase")}
    assert {"thresholds", "stages", "artifacts"} < classes
    assert {item.name.replace(".", "_") for item in failing.comparisons} < classes, "Jenkins splits at the last dot"
    skipped = [element.get("message") for element in root.iter("skipped")]
    assert skipped == ["nothing it depends on changed", "no GPU here"]


def test_a_failed_run_is_never_green(passing: Document) -> None:
    """Whatever it is that failed."""
    failed_run = replace(passing, passed=False, headline="The stage of engines failed.", verdicts=(), comparisons=())
    stage = Stage(name="engine", status="failed", reason="out of memory")
    for document, message in (
        (failed_run, "The stage of engines failed."),
        (replace(failed_run, stages=(stage,)), "out of memory"),
    ):
        (failure,) = ElementTree.fromstring(to_junit(document)).iter("failure")
        assert failure.get("message") == message
        assert workflow_commands(document)[0].startswith("::error ")


def test_junit_holds_what_xml_cannot(passing: Document) -> None:
    document = replace(passing, title="a\x00b\x1b[31mc\ud800\uffff", headline="x")
    root = ElementTree.fromstring(to_junit(document))
    assert root.get("name") == "a\ufffdb\ufffd[31mc\ufffd\ufffd"


def test_markdown_fits_a_comment(passing: Document, failing: Document) -> None:
    for document in documents(passing, failing):
        for times in (1, 30):
            text = to_markdown(grown(document, times)) if times > 1 else to_markdown(document)
            assert len(text.encode()) < LARGEST
            assert text.startswith(f"## {'✅ Passed' if document.passed and times == 1 else '❌ Failed'}: ")
            assert text.count("<details>") == text.count("</details>")
    assert "more" in to_markdown(grown(failing, 30))
    endless = replace(failing, headline="word " * 50_000)
    assert len(to_markdown(endless).encode()) < LARGEST


def test_markdown_names_what_it_leaves_out(failing: Document) -> None:
    text = to_markdown(grown(failing, 30))
    for title in ("Errors", "Thresholds", "Latency", "Ranges", "Stages", "Provenance"):
        assert f"<summary>{title}</summary>" in text or title.lower() in text.rpartition("Left out")[2]


def test_markdown_says_what_fails(failing: Document) -> None:
    text = to_markdown(failing).replace("\\", "")
    for verdict in failed(failing):
        assert verdict.sentence in text[: text.index("<details>")]
    for artifact in failing.artifacts:
        assert artifact.name in text[: text.index("<details>")]


def test_markdown_shows_hostile_texts_as_texts(failing: Document) -> None:
    text = to_markdown(poisoned(failing))
    tags = set(re.findall(r"<[^>]*>", text))
    assert tags == {"<details>", "</details>", "<summary>", "</summary>"}
    assert "@someone" not in text, "nobody is mentioned"
    assert "#1" not in text, "no issue is linked"
    assert not re.search(r"(?<!\\)\[a", text), "no link"
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.findall(r"(?<!\\)\|", line) for line in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, "every row has as many cells"


def unescaped(command: str) -> tuple[str, str, str]:
    """Level, title and message, as the runner of GitHub Actions reads a line."""
    match = re.fullmatch(r"::(\w+) title=([^:,]*)::(.*)", command)
    assert match, command
    texts = [match[2].replace("%3A", ":").replace("%2C", ","), match[3]]
    return match[1], *(text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%") for text in texts)  # type: ignore[return-value]  # two of them


def test_github_gets_an_error_for_each_broken_threshold(passing: Document, failing: Document) -> None:
    for document in (failing, poisoned(failing)):
        found = [unescaped(line) for line in workflow_commands(document)]
        assert [text for level, _, text in found if level == "error"] == [item.sentence for item in failed(document)]
        assert [level for level, _, _ in found][-1] == "notice", "what was not run"
    assert unescaped(workflow_commands(passing)[0]) == ("notice", passing.title, headline(passing))


def test_github_shows_ten_annotations_of_a_kind(failing: Document) -> None:
    lines = workflow_commands(grown(failing, 30))
    kinds = Counter(unescaped(line)[0] for line in lines)
    assert max(kinds.values()) <= 10
    assert "291 more thresholds are broken" in lines[9]


def test_github_is_told_only_in_github(failing: Document, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("from an earlier tool\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert announce(failing, environment) == workflow_commands(failing)
    assert summary.read_text() == "from an earlier tool\n" + to_markdown(failing) + "\n"
    assert announce(failing, {"GITHUB_STEP_SUMMARY": str(summary)}) == []
    assert announce(failing, {"GITHUB_ACTIONS": "true"}) == workflow_commands(failing)
    with pytest.raises(UsageError, match="Cannot write the step's summary"):
        announce(failing, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)})


def test_the_command_tells_github(
    failing: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from command_line import call

    (tmp_path / "report.json").write_text(json.dumps(failing.to_json()))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    code, out, err = call(capsys, "report", tmp_path / "report.json", "--json", "--github")
    assert (code, json.loads(out)["passed"]) == (0, False)
    assert err.splitlines() == workflow_commands(failing)
    assert (tmp_path / "summary.md").read_text().startswith("## ❌ Failed")
    assert call(capsys, "report", tmp_path / "report.json")[2] == ""
