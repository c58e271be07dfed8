"""The gate's thresholds applied: what was found, what is allowed, and one sentence for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from samdec_export.core.results import STRUCTURE, CaseResult, Limit, Number, OutputMetrics, severity_of
from samdec_export.core.rules import RULES, Rule
from samdec_export.report.parts import Baseline, Comparison, Timing, Verdict

__all__ = ["judge_comparison", "judge_latency", "judge_origin", "judge_weights"]

Origin: TypeAlias = Literal["weights", "fp32", "onnx"]
_Measured: TypeAlias = tuple[CaseResult, OutputMetrics]
_Judged: TypeAlias = tuple[CaseResult, Number, float, str]
"""The case that decides, what was measured there, what is allowed, and the sentence."""

ORIGINS: Final[dict[Origin, str]] = {"weights": "decoder weights", "fp32": "the fp32 file", "onnx": "the ONNX file"}


def judge_comparison(comparison: Comparison) -> Iterator[Verdict]:
    """Yield a verdict for what the outputs are, and one for each threshold and output."""
    yield _structure(comparison)
    for rule in RULES:
        for name in dict.fromkeys(output.name for case in comparison.cases for output in case.outputs):
            found = [
                (case, output)
                for case in comparison.cases
                for output in case.outputs
                if output.name == name and rule.binds(output)
            ]
            if found:
                broken = _broken(rule, comparison, name, found)
                case, measured, allowed, sentence = broken or _kept(rule, comparison, name, found)
                yield Verdict(
                    passed=broken is None,
                    threshold=_key(rule, comparison),
                    artifact=comparison.artifact,
                    comparison=comparison.name,
                    case=case.case,
                    output=name,
                    measured=measured,
                    allowed=allowed,
                    bound=rule.bound,
                    sentence=sentence,
                )


def judge_weights(artifact: str, comparisons: Iterable[Comparison]) -> Verdict:
    """Return a verdict: was a file made from the checkpoint that it was compared with."""
    findings = [finding for comparison in comparisons for finding in comparison.findings]
    sentence = f"{artifact} has the decoder weights of the checkpoint."
    if findings:
        sentence = f"{artifact} does not equal its checkpoint: {'; '.join(findings)}."
    return Verdict(passed=not findings, threshold="checkpoint", artifact=artifact, sentence=sentence)


def _structure(comparison: Comparison) -> Verdict:
    """Judge whether outputs are there, finite, and of the right types and shapes; and whether anything was compared."""
    where, count = f"{comparison.artifact} ({comparison.name})", len(comparison.cases)
    broken = [
        (case, violation) for case in comparison.cases for violation in case.violations if violation.metric in STRUCTURE
    ]
    case, sentence = "", f"{where}: every output is there, finite, and of its type and shape in all {count} cases."
    if not comparison.cases:
        sentence = f"{where}: nothing was compared."
    elif broken:
        first, violation = broken[0]
        case, failed = first.case, len({id(case) for case, _ in broken})
        what = " ".join(part for part in (violation.output, violation.detail) if part)
        sentence = f"{where}, case {case}: {what}; {failed} of {count} cases are like that."
    return Verdict(
        passed=bool(comparison.cases) and not broken,
        threshold="structure",
        artifact=comparison.artifact,
        comparison=comparison.name,
        case=case,
        sentence=sentence,
    )


def _kept(rule: Rule, comparison: Comparison, output: str, found: Sequence[_Measured]) -> _Judged:
    """Judge a rule that no case breaks: by the worst number, beside what is allowed in its case."""
    case, worst = found[0]
    for other, metrics in found[1:]:
        if rule.worse(rule.measured(metrics), rule.measured(worst)):
            case, worst = other, metrics
    value, limit = rule.measured(worst) or 0.0, rule.allowed(comparison.limits, case.limits[output])
    asked, pixels, waived = rule.asked(comparison.limits), comparison.limits.pixels, ""
    if rule.waivable and rule.worse(value, asked):  # in small masks shares say little
        waived = f", which gate.{comparison.precision}.pixels waives: no more than {pixels} pixels of a mask flip"
    sentence = (
        f"{_title(rule, comparison, output)} is {value:.4g}, in case {case.case}; {_key(rule, comparison)} asks for "
        f"{rule.bound} {asked:.4g}{waived}{_raised(rule, comparison, output, found)}."
    )
    return case, value, limit, sentence


def _broken(rule: Rule, comparison: Comparison, output: str, found: Sequence[_Measured]) -> _Judged | None:
    """Judge by the case that breaks the rule most; None where none does."""
    broken = [
        (case, violation)
        for case, _ in found
        for violation in case.violations
        if (violation.output, violation.metric) == (output, rule.metric)
    ]
    if not broken:
        return None
    case, violation = max(broken, key=lambda pair: severity_of(pair[1]))
    limit = rule.allowed(comparison.limits, case.limits[output])
    sentence = (
        f"{_title(rule, comparison, output)} is {_number(violation.value)} in case {case.case}, and "
        f"{_key(rule, comparison)} asks for {rule.bound} {limit:.4g}"
        f"{_raised_from(rule, comparison, case.limits[output])}: {_by_how_much(rule, violation.value, limit)}; "
        f"{len(broken)} of {len(found)} cases fail."
    )
    return case, violation.value, limit, sentence


def _key(rule: Rule, comparison: Comparison) -> str:
    return f"gate.{comparison.precision}.{rule.key}"


def _title(rule: Rule, comparison: Comparison, output: str) -> str:
    return f"{comparison.artifact} ({comparison.name}): {rule.title.format(output=output)}"


def _raised(rule: Rule, comparison: Comparison, output: str, found: Sequence[_Measured]) -> str:
    """Say that cases passed only by what the reference itself cannot promise there."""
    limits = [(case.limits[output], case) for case, _ in found if rule.raised(comparison.limits, case.limits[output])]
    if not limits:
        return ""
    limit, case = max(limits, key=lambda pair: pair[0].floor or 0.0)
    return (
        f", and {_loosened(rule, limit)} in {len(limits)} of {len(found)} cases: in case {case.case} eager fp32 is "
        f"itself {_number(limit.floor)} of the span from fp64"
    )


def _loosened(rule: Rule, limit: Limit) -> str:
    if rule.waivable:
        return f"leaves pixels undecided within {limit.margin:.4g} of the span"
    if rule.key == "best_mask":
        return f"takes scores within {limit.relative:.4g} for equal"
    return f"was raised to as much as {limit.relative:.4g}"


def _raised_from(rule: Rule, comparison: Comparison, limit: Limit) -> str:
    asked = rule.asked(comparison.limits)
    if rule.allowed(comparison.limits, limit) <= asked:
        return ""
    return f" (raised from {asked:.4g}: eager fp32 is itself {_number(limit.floor)} of the span from fp64 there)"


def _number(value: Number) -> str:
    return "no finite number" if value is None else f"{value:.4g}"


def _by_how_much(rule: Rule, value: Number, limit: float) -> str:
    if value is None:
        return "not a number to compare"
    if rule.bound == "at least":
        return f"{limit - value:.4g} too low"
    return f"{value / limit:.3g} times as much" if limit else f"{value:.4g} too much"


def judge_origin(artifact: str, kind: Origin, found: str | None, expected: str | None) -> Verdict:
    """Return a verdict: was a file made from what it should have been, by the hash of `kind` in its record?"""
    passed = found == expected
    other = f"not {(expected or 'none')[:12]} as in this run: it was made from another one"
    outcome = "as it should be" if passed else other
    sentence = f"{artifact} names {ORIGINS[kind]} {(found or 'none')[:12]}, {outcome}."
    return Verdict(passed=passed, threshold=f"origin.{kind}", artifact=artifact, sentence=sentence)


def judge_latency(measured: Iterable[Timing], baseline: Baseline, ratio: float) -> Iterator[Verdict]:
    """Yield a verdict for each measurement that the baseline has too, or one that says that there is none.

    `ratio` is the largest multiple of the baseline's time.
    """
    medians = {(item.candidate, item.images, item.prompts, item.points): item.median for item in baseline.measurements}
    compared = False
    for item in measured:
        key = (item.candidate, item.images, item.prompts, item.points)
        before = medians.get(key)
        if item.median is None or not before:
            continue
        compared = True
        found, load = item.median / before, f"images={item.images},prompts={item.prompts},points={item.points}"
        passed = found <= ratio
        end = "" if passed else f": {1e3 * (item.median - ratio * before):.3g} ms too slow"
        yield Verdict(
            passed=passed,
            threshold="gate.latency.ratio",
            artifact=item.candidate,
            case=load,
            measured=found,
            allowed=ratio,
            bound="at most",
            sentence=f"{item.candidate} takes {1e3 * item.median:.3g} ms for {load}, {found:.3g} times the "
            f"{1e3 * before:.3g} ms of {baseline.name}; gate.latency.ratio asks for at most {ratio:g}{end}.",
        )
    if not compared:
        none = f"{baseline.name} has no time of any file and workload that this run measured: nothing was compared."
        yield Verdict(passed=False, threshold="gate.latency.baseline", artifact="", sentence=none)
