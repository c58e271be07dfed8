"""What was compared, and what came of it; `core.results` has the types of the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samdec_export.core.results import CaseResult, Floor, Histogram, Number, Tolerance, ValidationResult
from samdec_export.core.rules import Bound

__all__ = ["Comparison", "Verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate against its reference, over every case.

    Args:
        artifact: The name of the artifact that is judged.
        candidate: The engine that ran it.
        reference: What is right.
        precision: That of the artifact.
        passed: Whether nothing is out of its limits.
        limits: What its precision allows.
        allowed: By output, the largest relative error that passes in some case: the limit, or more where the floor of
            that case calls for it.
        floors: By output, the largest of the reference's own distances to float64 that were measured.
        cases: What was compared.
        errors: By output, the spread of its errors over all cases.
        findings: Reasons to fail that belong to no case.
    """

    artifact: str
    candidate: str
    reference: str
    precision: str
    passed: bool
    limits: Tolerance
    allowed: Mapping[str, float]
    floors: Mapping[str, Floor]
    cases: tuple[CaseResult, ...]
    errors: Mapping[str, Histogram] | None = None
    findings: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: ValidationResult, artifact: str, precision: str) -> Comparison:
        """Return what a validation found, with the name of the artifact and its precision."""
        return cls(
            artifact=artifact,
            candidate=result.candidate,
            reference=result.reference,
            precision=precision,
            passed=result.passed,
            limits=result.limits,
            allowed=result.allowed,
            floors=result.floors,
            cases=result.cases,
            errors=result.errors,
            findings=result.findings,
        )

    @property
    def name(self) -> str:
        """Return what verdicts and masks call it."""
        return f"{self.candidate} against {self.reference}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One threshold applied.

    Args:
        passed: Whether what was measured is within what is allowed.
        threshold: Its name in the config.
        artifact: The name of the artifact.
        comparison: The comparison's name; empty where the threshold is not of one.
        case: The case that decided; empty where there is none.
        output: The output that decided; empty where there is none.
        measured: What was found there.
        allowed: The threshold.
        bound: Whether it bounds from above or from below.
        sentence: Which threshold, on which case, by how much, for somebody who reads nothing else.
    """

    passed: bool
    threshold: str
    artifact: str
    comparison: str = ""
    case: str = ""
    output: str = ""
    measured: Number = None
    allowed: Number = None
    bound: Bound | None = None
    sentence: str
