"""A document as JUnit XML, as GitLab and Jenkins read it: a test case for each compared case and each threshold.

GitLab shows `classname` as the suite, and of test cases with one `classname` and `name` only the first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from xml.etree import ElementTree as Xml

from samdec_export.core.results import CaseResult
from samdec_export.report.document import Document
from samdec_export.report.parts import Comparison, Verdict
from samdec_export.report.views import headline

__all__ = ["to_junit"]

FORBIDDEN = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""What XML 1.0 cannot hold, not even escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """One test case: it failed where `failure` says why, and was skipped where `skipped` does."""

    group: str
    name: str
    kind: str = ""
    failure: str = ""
    detail: str = ""
    skipped: str = ""


def to_junit(document: Document) -> str:
    """Return the file's text."""
    suites = {
        "thresholds": [_threshold(verdict) for verdict in document.verdicts],
        "comparisons": [test for comparison in document.comparisons for test in _comparison(comparison)],
        "run": [*_run(document)],
    }
    tests = [*chain(*suites.values())]
    if not document.passed and not any(test.failure for test in tests):
        suites["run"].append(_Test(group="run", name="verdict", kind="verdict", failure=headline(document)))
        tests = [*chain(*suites.values())]
    root = Xml.Element("testsuites", {"name": _text(document.title), **_counts(tests)})
    del root.attrib["skipped"]  # which Jenkins' schema has for suites alone
    root.set("time", f"{sum(stage.seconds for stage in document.stages):.3f}")
    try:
        timestamp = f"{datetime.fromisoformat(document.created):%Y-%m-%dT%H:%M:%S}"  # without fractions and time zone
    except ValueError:
        timestamp = _text(document.created)
    root.extend(_suite(name, found, timestamp) for name, found in suites.items())
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, tests: Sequence[_Test], timestamp: str) -> Xml.Element:
    suite = Xml.Element("testsuite", {"name": name, **_counts(tests), "timestamp": timestamp})
    seen: Counter[tuple[str, str]] = Counter()
    for test in tests:
        seen[test.group, test.name] += 1
        suite.append(_element(test, seen[test.group, test.name]))
    return suite


def _threshold(verdict: Verdict) -> _Test:
    parts = (verdict.threshold, verdict.output, verdict.comparison)  # not the case: names stay from run to run
    numbers = [f"case: {verdict.case}"] if verdict.case else []  # in full: sentences round them
    numbers += [f"measured: {verdict.measured}"] if verdict.measured is not None else []
    numbers += [f"allowed: {verdict.bound or ''} {verdict.allowed}"] if verdict.allowed is not None else []
    return _Test(
        group=f"{verdict.artifact}.thresholds",
        name=", ".join(part for part in parts if part),
        kind=verdict.threshold,
        failure="" if verdict.passed else verdict.sentence,
        detail="\n".join(numbers),
    )


def _comparison(comparison: Comparison) -> Iterator[_Test]:
    group = f"{comparison.artifact}.{comparison.name.replace('.', '_')}"  # Jenkins takes what follows the last dot
    for number, finding in enumerate(comparison.findings, 1):
        yield _Test(group=group, name=f"finding {number}", kind="finding", failure=finding)
    for case in comparison.cases:
        yield _case(comparison, case, group)


def _case(comparison: Comparison, case: CaseResult, group: str) -> _Test:
    """Return a failure: the first broken limit is its message, every one its text."""
    if case.passed:
        return _Test(group=group, name=case.case)
    broken = [f"{item.output} {item.metric}: {item.detail}".strip() for item in case.violations]
    sentence = f"{comparison.artifact}, {comparison.name}, {case.case}: {broken[0] if broken else 'failed'}."
    return _Test(group=group, name=case.case, kind="tolerance", failure=sentence, detail="\n".join(broken))


def _run(document: Document) -> Iterator[_Test]:
    for stage in document.stages:
        failure = stage.reason or "failed" if stage.status == "failed" else ""
        skipped = stage.reason or "skipped" if stage.status == "skipped" else ""
        yield _Test(group="run.stages", name=stage.name, kind="stage", failure=failure, skipped=skipped)
    for artifact in document.artifacts:
        if artifact.status == "not run":  # a green report must not hide it
            yield _Test(group="run.artifacts", name=artifact.name, skipped=artifact.reason or "not run")


def _element(test: _Test, number: int) -> Xml.Element:
    name = f"{test.name} #{number}" if number > 1 else test.name
    element = Xml.Element("testcase", {"classname": _text(test.group), "name": _text(name)})
    if test.failure:
        failure = Xml.SubElement(element, "failure", {"message": _text(test.failure), "type": _text(test.kind)})
        failure.text = _text(f"{test.failure}\n{test.detail}".strip())
    elif test.skipped:
        Xml.SubElement(element, "skipped", {"message": _text(test.skipped)})
    return element


def _counts(tests: Sequence[_Test]) -> dict[str, str]:
    return {
        "tests": str(len(tests)),
        "failures": str(sum(bool(test.failure) for test in tests)),
        "errors": "0",
        "skipped": str(sum(bool(test.skipped) and not test.failure for test in tests)),
    }


def _text(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
