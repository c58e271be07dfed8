"""A document as Markdown that fits a comment on a pull request: the verdict first, all else folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from samdec_export.report import figures
from samdec_export.report.document import Document
from samdec_export.report.parts import ArtifactEntry, Comparison, Latency, Verdict
from samdec_export.report.views import closest, failed, headline, nearest_ranges, output_rows, reach, timing_rows, usage

__all__ = ["LARGEST", "to_markdown"]

LARGEST = 65_536
"""Characters that GitHub takes in a comment; bytes are counted here, which are as many or more."""

ROOM = LARGEST - 1_000
"""For all but the closing lines."""

FAILURES_SHOWN, CLOSEST_SHOWN, RANGES_SHOWN, ROWS_SHOWN = 20, 3, 10, 60


def to_markdown(document: Document) -> str:
    """Return the text, at most `LARGEST` bytes of it: a section that has no room is named instead."""
    parts, left_out = [_verdict(document)], []
    used = len(parts[0].encode())
    for title, text in _sections(document):
        room = len(text.encode())
        if used + room > ROOM:
            left_out.append(title)
        else:
            parts.append(text)
            used += room
    if left_out:
        parts.append(f"Left out for want of room: {', '.join(left_out)}. The HTML page has them.\n")
    return "\n".join(parts)


def _verdict(document: Document) -> str:
    lines = [
        f"## {'✅ Passed' if document.passed else '❌ Failed'}: {_cell(document.title)}",
        "",
        _cell(headline(document)),
        "",
    ]
    broken = failed(document)
    lines += [f"- {_cell(verdict.sentence)}" for verdict in broken[:FAILURES_SHOWN]]
    if len(broken) > FAILURES_SHOWN:
        lines.append(f"- and {len(broken) - FAILURES_SHOWN} more")
    if document.passed and (near := closest(document, CLOSEST_SHOWN)):
        lines += ["Nearest to a limit:", ""]
        for verdict in near:
            where = ", ".join(_cell(part) for part in (verdict.artifact, verdict.comparison, verdict.output) if part)
            lines.append(f"- {figures.used(usage(verdict))} of {_cell(verdict.threshold)} used by {where}")
    lines += ["", *(f"> {_cell(note)}\n" for note in document.notes)]
    text, limit = "\n".join(lines), ROOM // 2  # a verdict of any length leaves some room to the table of artifacts
    return text if len(text.encode()) <= limit else text.encode()[:limit].decode(errors="ignore") + "…\n"


def _sections(document: Document) -> Iterator[tuple[str, str]]:
    """Yield every section that has something to say, the most wanted first."""
    yield "artifacts", _table(("artifact", "here", "precision", "size", "products"), map(_artifact, document.artifacts))
    if document.comparisons:
        yield "errors", _fold("Errors", _errors(document.comparisons))
    if document.verdicts:
        yield "thresholds", _fold("Thresholds", _thresholds(document.verdicts))
    if document.latency:
        yield "latency", _fold("Latency", _times(document.latency))
    if document.ranges:
        yield "ranges", _fold("Ranges", _ranges(document))
    yield "stages", _fold("Stages", _stages(document))
    yield "provenance", _fold("Provenance", _provenance(document))


def _artifact(artifact: ArtifactEntry) -> Sequence[str]:
    mark = {"validated": "✅", "failed": "❌"}.get(artifact.status, "⏭️")
    reason = f": {artifact.reason}" if artifact.reason else ""
    products = ", ".join(f"{figures.percent(share)} {name}" for name, share in (artifact.products or {}).items())
    name = f"{artifact.name} ({artifact.engine.flavour if artifact.engine else artifact.kind})"
    return name, f"{mark} {artifact.status}{reason}", artifact.precision, figures.size(artifact.bytes), products


def _errors(comparisons: Sequence[Comparison]) -> str:
    rows = [
        (
            comparison.artifact,
            comparison.name,
            row.output,
            ("" if row.passed else "❌ ") + figures.number(row.relative),
            figures.number(row.allowed),
            figures.closeness(row.iou),
            figures.percent(row.flipped),
            row.worst_case,
        )
        for comparison in comparisons
        for row in output_rows(comparison)
    ]
    findings = [f"- ❌ {_cell(text)}" for comparison in comparisons for text in comparison.findings]
    header = ("artifact", "comparison", "output", "relative error", "allowed", "mask IoU", "flipped", "worst case")
    return "\n".join([_table(header, rows), *findings])


def _thresholds(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (
            "✅" if verdict.passed else "❌",
            verdict.threshold,
            verdict.artifact,
            verdict.comparison,
            verdict.output,
            figures.bounded(verdict.measured, verdict.bound),
            f"{verdict.bound or ''} {figures.bounded(verdict.allowed, verdict.bound)}",
            verdict.case,
        )
        for verdict in sorted(verdicts, key=lambda item: item.passed)
    ]
    return _table(("", "threshold", "artifact", "comparison", "output", "measured", "allowed", "case"), rows)


def _times(latency: Latency) -> str:
    rows = [
        (
            row.timing.candidate,
            row.workload,
            figures.seconds(row.timing.median) if row.timing.median is not None else row.timing.unsupported,
            f"{figures.seconds(row.timing.low)} to {figures.seconds(row.timing.high)}" if row.timing.median else "",
            figures.seconds(row.timing.per_prompt),
            figures.change(row.change),
        )
        for row in timing_rows(latency)
    ]
    against = f" Change is against {_cell(latency.baseline.name)}." if latency.baseline else ""
    table = _table(("candidate", "workload", "median", "quartiles", "a prompt", "change"), rows)
    return f"Medians on {_cell(latency.device)}.{against}\n\n{table}"


def _ranges(document: Document) -> str:
    rows = [
        (row.tensor, row.op, figures.number(row.absmax), figures.percent(reach(row)), "yes" if row.kept else "no")
        for row in nearest_ranges(document, RANGES_SHOWN)
    ]
    return _table(("tensor", "operator", "largest magnitude", "of the limit", "kept in fp32"), rows)


def _stages(document: Document) -> str:
    times = (figures.seconds(None if stage.status == "skipped" else stage.seconds) for stage in document.stages)
    rows = [(stage.name, stage.status, time, stage.reason) for stage, time in zip(document.stages, times, strict=True)]
    return _table(("stage", "status", "time", "why"), rows)


def _provenance(document: Document) -> str:
    made = document.provenance
    machine = (
        f"{made.machine.platform}, {made.machine.cpu}, {made.machine.threads} threads, {made.machine.gpu or 'no GPU'}"
    )
    rows = [
        ("checkpoint", f"{made.checkpoint.file or 'embedded weights'} ({made.checkpoint.layout})"),
        ("SHA-256 of the file", made.checkpoint.sha256 or figures.NOTHING),
        ("SHA-256 of the decoder's weights", made.checkpoint.weights_sha256),
        *((f"SHA-256 of {artifact.name}", artifact.sha256) for artifact in document.artifacts),
        ("machine", machine),
        ("made with", ", ".join(f"{tool} {version}" for tool, version in made.tools.items())),
        ("created", document.created),
        ("again", document.command),
    ]
    return _table(("", ""), rows)


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    cells = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    more = len(cells) - ROWS_SHOWN
    return "\n".join(
        [*lines, *cells[:ROWS_SHOWN], *([f"\n{more} more rows in the HTML page."] if more > 0 else []), ""]
    )


def _cell(text: str) -> str:
    r"""Text that Markdown shows as it is: no markup, no HTML, no table cell, nobody mentioned, no issue linked."""
    one_line = " ".join(text.split())
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_\[\]|~])", r"\\\1", escaped)
    return re.sub(r"([@#])(?=\w)", "\\1\N{ZERO WIDTH NON-JOINER}", escaped)
