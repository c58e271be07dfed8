"""A validation as a table for people and as JSON for machines."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from samdec_export.validation.compare import CaseResult, OutputMetrics
from samdec_export.validation.validate import ValidationResult

__all__ = ["SCHEMA_VERSION", "failure_message", "print_report", "to_json"]

SCHEMA_VERSION = 1


def to_json(result: ValidationResult, replay: str) -> dict[str, Any]:
    """The whole result; infinite numbers, which JSON lacks, become null.

    Args:
        result: What was found.
        replay: The command that runs the worst case again.
    """
    worst = result.worst
    report: dict[str, Any] = _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "passed": result.passed,
            "reference": result.reference,
            "candidate": result.candidate,
            "tolerance": asdict(result.tolerance),
            "floor": {"case": result.floor_case, "relative": result.floor},
            "findings": list(result.findings),
            "worst_case": worst.case if worst else None,
            "replay": replay,
            "cases": [{**asdict(case), "passed": case.passed} for case in result.cases],
        }
    )
    return report


def print_report(result: ValidationResult, console: Console) -> None:
    """A row for each output: its worst over all cases, beside what is allowed."""
    limit = result.tolerance
    failed = sum(not case.passed for case in result.cases)
    table = Table(title=f"{result.candidate} against {result.reference}", title_justify="left")
    for column in (
        "output",
        "cases",
        "max abs",
        "mean abs",
        "relative",
        "cosine",
        "PSNR dB",
        "mask IoU",
        "flipped",
        "best mask",
    ):
        table.add_column(column, justify="left" if column == "output" else "right", no_wrap=True)
    for name in dict.fromkeys(output.name for case in result.cases for output in case.outputs):
        table.add_row(*_row(name, result.cases))
    table.add_section()
    table.add_row(
        "allowed",
        "",
        "",
        "",
        f"{limit.relative:.1e}",
        "",
        "",
        f"{limit.iou:g}",
        f"{limit.flipped:.1e}",
        f"{limit.best_mask:g}",
    )
    console.print(table)
    console.print(f"{len(result.cases)} cases, {failed} failed.")
    console.print(f"Eager fp32 is itself {result.floor:.1e} from fp64 ({result.floor_case}).")
    for finding in result.findings:
        console.print(finding, style="red")


def failure_message(result: ValidationResult) -> str:
    """One line: how many cases failed, which is the worst, and why."""
    failed = [case for case in result.cases if not case.passed]
    reasons = list(result.findings)
    if failed and result.worst:
        gravest = max(result.worst.violations, key=lambda violation: violation.severity)
        where = " ".join(part for part in (gravest.output, gravest.metric) if part)
        reasons.append(
            f"{len(failed)} of {len(result.cases)} cases; worst {result.worst.case}: {where}: {gravest.detail}"
        )
    return f"{result.candidate} does not equal {result.reference}: {'; '.join(reasons)}."


def _row(name: str, cases: tuple[CaseResult, ...]) -> tuple[str, ...]:
    outputs = [output for case in cases for output in case.outputs if output.name == name]
    tensors = [output.tensor for output in outputs]
    psnr = min(tensor.psnr for tensor in tensors)
    return (
        name,
        str(len(outputs)),
        f"{max(tensor.max_abs for tensor in tensors):.1e}",
        f"{max(tensor.mean_abs for tensor in tensors):.1e}",
        f"{max(tensor.relative for tensor in tensors):.1e}",
        f"{min(tensor.cosine for tensor in tensors):.8f}",
        "exact" if math.isinf(psnr) else f"{psnr:.1f}",
        *_mask_columns(outputs),
    )


def _mask_columns(outputs: list[OutputMetrics]) -> tuple[str, str, str]:
    masks = [output.masks for output in outputs if output.masks]
    kept = [output.best_mask for output in outputs if output.best_mask is not None]
    return (
        f"{min(mask.iou_min for mask in masks):.6f}" if masks else "",
        f"{max(mask.flipped for mask in masks):.1e}" if masks else "",
        f"{min(kept):g}" if kept else "",
    )


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
