"""A validation as a table for people and as JSON for machines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from samdec_export.core.plain import to_plain
from samdec_export.core.results import CaseResult, Number, OutputMetrics, ValidationResult, severity_of

__all__ = ["SCHEMA_VERSION", "failure_message", "print_report", "to_json"]

SCHEMA_VERSION = 4

COLUMNS = [
    "cases",
    "max abs",
    "mean abs",
    "relative",
    "allowed",
    "cosine",
    "PSNR dB",
    "mask IoU",
    "flipped",
    "best mask",
]


def to_json(results: Sequence[ValidationResult], replay: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Every comparison; infinite numbers, which JSON lacks, become null.

    Args:
        results: What was found, a result for each comparison.
        replay: The command that runs the worst case again.
        notes: What could not be compared.
    """
    report: dict[str, Any] = to_plain(
        {
            "schema_version": SCHEMA_VERSION,
            "passed": all(result.passed for result in results),
            "replay": replay,
            "notes": notes,
            "comparisons": [_comparison(result) for result in results],
        }
    )
    return report


def _comparison(result: ValidationResult) -> dict[str, Any]:
    worst = result.worst
    return {
        "passed": result.passed,
        "reference": result.reference,
        "candidate": result.candidate,
        "tolerance": result.limits,
        "allowed": result.allowed,
        "floors": result.floors,
        "findings": result.findings,
        "worst_case": worst.case if worst else None,
        "cases": result.cases,
    }


def print_report(result: ValidationResult, console: Console) -> None:
    """A row for each output: its worst over all cases, beside what is allowed."""
    limit = result.limits
    failed = sum(not case.passed for case in result.cases)
    title = f"{result.candidate} against {result.reference}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("output", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name in dict.fromkeys(output.name for case in result.cases for output in case.outputs):
        table.add_row(*_row(name, result.cases, result.allowed[name]))
    table.add_row("allowed", *[""] * 7, f"{limit.iou:g}", f"{limit.flipped:.1e}", f"{limit.best_mask:g}")
    console.print(table)
    console.print(f"{len(result.cases)} cases, {failed} failed.")
    if any(floor.relative for floor in result.floors.values()):
        floors = ", ".join(f"{name} {floor.relative:.1e}" for name, floor in result.floors.items())
        console.print(f"Eager fp32 is itself this far from fp64: {floors}.")
    for finding in result.findings:
        console.print(finding, style="red")


def failure_message(result: ValidationResult) -> str:
    """One line: how many cases failed, which is the worst, and why."""
    failed = [case for case in result.cases if not case.passed]
    reasons = list(result.findings)
    if failed and result.worst:
        gravest = max(result.worst.violations, key=severity_of)
        where = " ".join(part for part in (gravest.output, gravest.metric) if part)
        reasons.append(
            f"{len(failed)} of {len(result.cases)} cases; worst {result.worst.case}: {where}: {gravest.detail}"
        )
    return f"{result.candidate} does not equal {result.reference}: {'; '.join(reasons)}."


def _row(name: str, cases: tuple[CaseResult, ...], allowed: float) -> tuple[str, ...]:
    outputs = [output for case in cases for output in case.outputs if output.name == name]
    tensors = [output.tensor for output in outputs]
    psnr = min((tensor.psnr for tensor in tensors if tensor.psnr is not None), default=None)
    return (
        name,
        str(len(outputs)),
        _most(tensor.max_abs for tensor in tensors),
        _most(tensor.mean_abs for tensor in tensors),
        _most(tensor.relative for tensor in tensors),
        f"{allowed:.1e}",
        f"{min(tensor.cosine or 0.0 for tensor in tensors):.8f}",
        "exact" if psnr is None else f"{psnr:.1f}",
        *_mask_columns(outputs),
    )


def _most(values: Iterable[Number]) -> str:
    return f"{max(math.inf if value is None else value for value in values):.1e}"


def _mask_columns(outputs: list[OutputMetrics]) -> tuple[str, str, str]:
    masks = [output.masks for output in outputs if output.masks]
    kept = [output.best_mask for output in outputs if output.best_mask is not None]
    return (
        f"{min(mask.iou_min for mask in masks):.6f}" if masks else "",
        f"{max(mask.flipped for mask in masks):.1e}" if masks else "",
        f"{min(kept):g}" if kept else "",
    )
