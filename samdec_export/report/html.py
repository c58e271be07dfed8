"""A document as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from samdec_export.core.results import CaseResult, MaskPair
from samdec_export.report import figures
from samdec_export.report.charts.cases import CaseChart, case_charts
from samdec_export.report.charts.errors import ErrorsChart, errors_chart
from samdec_export.report.charts.ranges import RangesChart, ranges_chart
from samdec_export.report.charts.times import TimesChart, times_charts
from samdec_export.report.document import Comparison, Document, RangeRow
from samdec_export.report.masks import COLOURS, draw_masks
from samdec_export.report.views import (
    OutputRow,
    TimingRow,
    closest,
    failed,
    headline,
    nearest_ranges,
    output_rows,
    reach,
    timing_rows,
    usage,
)

__all__ = ["to_html"]

FAILED_SHOWN, CLOSEST_SHOWN, CASES_SHOWN, VERDICTS_SHOWN, RANGES_SHOWN, MASKS_SHOWN = 20, 3, 60, 300, 12, 8

MASK_BYTES = 600_000
"""All pictures of masks together: real masks take a few kB, but noise at image size would not stay small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownComparison:
    """A comparison with what is drawn of it, and those of its cases that are listed: the failed ones first."""

    comparison: Comparison
    listed: Sequence[CaseResult]
    rows: Sequence[OutputRow]
    cases: Sequence[CaseChart]
    errors: Sequence[ErrorsChart]


@dataclass(frozen=True, slots=True)
class ShownMasks:
    """A pair of masks and its three pictures, as `data:` URLs."""

    pair: MaskPair
    reference: str
    candidate: str
    flipped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRanges:
    """The chart of all ranges, and the rows that a reader looks for first."""

    chart: RangesChart
    nearest: Sequence[RangeRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTimes:
    """A chart for each workload, and every measurement."""

    charts: Sequence[TimesChart]
    rows: Sequence[TimingRow]


def to_html(document: Document) -> str:
    """Return the page. Every text of the document is escaped, whatever it holds."""
    shown, broken = _masks(document), failed(document)
    rows = timing_rows(document.latency) if document.latency else []
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=document,
            headline=headline(document),
            failed=broken[:FAILED_SHOWN],
            broken=len(broken),
            verdicts=sorted(document.verdicts, key=lambda verdict: verdict.passed)[:VERDICTS_SHOWN],
            closest=closest(document, CLOSEST_SHOWN) if document.passed else [],
            masks=shown,
            masks_left_out=len(document.worst_masks) - len(shown),
            colours=COLOURS,
            ranges=_ranges(document) if document.ranges else None,
            times=ShownTimes(charts=times_charts(rows), rows=rows) if rows else None,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("samdec_export.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _moment(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%d %B %Y, %H:%M %Z}".strip()
    except ValueError:
        return created


def _pretty(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False)


def _by_artifact(comparisons: Sequence[Comparison]) -> list[tuple[str, list[ShownComparison]]]:
    return [
        (name, [_comparison(item) for item in group])
        for name, group in groupby(comparisons, key=lambda item: item.artifact)
    ]


def _comparison(comparison: Comparison) -> ShownComparison:
    charts = (errors_chart(output, found) for output, found in (comparison.errors or {}).items())
    return ShownComparison(
        comparison=comparison,
        listed=sorted(comparison.cases, key=lambda case: case.passed)[:CASES_SHOWN],
        rows=output_rows(comparison),
        cases=case_charts(comparison),
        errors=[chart for chart in charts if chart],
    )


def _masks(document: Document) -> list[ShownMasks]:
    """Return the worst masks, as many as there is room for."""
    shown: list[ShownMasks] = []
    room = MASK_BYTES
    for pair in document.worst_masks[:MASKS_SHOWN]:
        pictures = draw_masks(pair)
        room -= sum(map(len, pictures))
        if room < 0:
            break
        shown.append(ShownMasks(pair, *pictures))
    return shown


def _ranges(document: Document) -> ShownRanges:
    return ShownRanges(chart=ranges_chart(document.ranges), nearest=nearest_ranges(document, RANGES_SHOWN))


FILTERS: Final = {
    "bounded": figures.bounded,
    "change": figures.change,
    "duration": figures.seconds,
    "figure": figures.number,
    "groupby_artifact": _by_artifact,
    "moment": _moment,
    "near_one": figures.closeness,
    "percent": figures.percent,
    "pretty": _pretty,
    "psnr": figures.psnr,
    "reach": reach,
    "short": figures.short,
    "size": figures.size,
    "usage": usage,
    "used": figures.used,
}
"""What the templates may call."""
