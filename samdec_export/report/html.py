"""A document as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from samdec_export.report import figures
from samdec_export.report.case_charts import case_charts
from samdec_export.report.charts import errors_chart, ranges_chart, times_charts
from samdec_export.report.document import Document
from samdec_export.report.masks import COLOURS, draw_masks
from samdec_export.report.parts import Comparison
from samdec_export.report.views import (
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


def to_html(document: Document) -> str:
    """Return the page. Every text of the document is escaped, whatever it holds."""
    shown, broken = _masks(document), failed(document)
    rows = timing_rows(document.latency) if document.latency else []
    environment = Environment(
        loader=PackageLoader("samdec_export.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("page.html").render(
        report=document,
        headline=headline(document),
        failed=broken[:FAILED_SHOWN],
        broken=len(broken),
        verdicts=sorted(document.verdicts, key=lambda verdict: verdict.passed)[:VERDICTS_SHOWN],
        closest=closest(document, CLOSEST_SHOWN) if document.passed else [],
        masks=shown,
        masks_left_out=len(document.worst_masks) - len(shown),
        colours=COLOURS,
        ranges=ranges_chart(document.ranges) if document.ranges else None,
        nearest_ranges=nearest_ranges(document, RANGES_SHOWN),
        times=times_charts(rows),
        timings=rows,
    )


def _moment(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%d %B %Y, %H:%M %Z}".strip()
    except ValueError:
        return created


def _by_artifact(comparisons: Sequence[Comparison]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (name, [_comparison(item) for item in group])
        for name, group in groupby(comparisons, key=lambda item: item.artifact)
    ]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison with what is drawn of it, and those of its cases that are listed: the failed ones first."""
    charts = (errors_chart(output, found) for output, found in (comparison.errors or {}).items())
    return {
        "comparison": comparison,
        "listed": sorted(comparison.cases, key=lambda case: case.passed)[:CASES_SHOWN],
        "rows": output_rows(comparison),
        "cases": case_charts(comparison),
        "errors": [chart for chart in charts if chart],
    }


def _masks(document: Document) -> list[dict[str, Any]]:
    """Return the worst masks with their three pictures, as many as there is room for."""
    shown: list[dict[str, Any]] = []
    room = MASK_BYTES
    for pair in document.worst_masks[:MASKS_SHOWN]:
        pictures = draw_masks(pair)
        room -= sum(map(len, pictures))
        if room < 0:
            break
        shown.append({"pair": pair, **dict(zip(("reference", "candidate", "flipped"), pictures, strict=True))})
    return shown


FILTERS: Final = {
    "bounded": figures.bounded,
    "change": figures.change,
    "duration": figures.seconds,
    "figure": figures.number,
    "groupby_artifact": _by_artifact,
    "moment": _moment,
    "near_one": figures.closeness,
    "percent": figures.percent,
    "pretty": partial(json.dumps, indent=2, ensure_ascii=False),
    "psnr": figures.psnr,
    "reach": reach,
    "short": figures.short,
    "size": figures.size,
    "usage": usage,
    "used": figures.used,
}
"""What the templates may call."""
