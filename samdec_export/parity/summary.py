"""A validation as JSON for machines, and as one line for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from samdec_export.core.plain import to_plain
from samdec_export.core.results import ValidationResult, severity_of

__all__ = ["SCHEMA_VERSION", "failure_message", "to_json"]

SCHEMA_VERSION = 4


def to_json(results: Sequence[ValidationResult], replay: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return every comparison; infinite numbers, which JSON lacks, become null.

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


def failure_message(result: ValidationResult) -> str:
    """Return one line: how many cases failed, which is the worst, and why."""
    failed = [case for case in result.cases if not case.passed]
    reasons = list(result.findings)
    if failed and result.worst:
        gravest = max(result.worst.violations, key=severity_of)
        where = " ".join(part for part in (gravest.output, gravest.metric) if part)
        reasons.append(
            f"{len(failed)} of {len(result.cases)} cases; worst {result.worst.case}: {where}: {gravest.detail}"
        )
    return f"{result.candidate} does not equal {result.reference}: {'; '.join(reasons)}."
