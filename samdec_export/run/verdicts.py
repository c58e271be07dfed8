"""The gate's thresholds applied: what was found, what is allowed, and one sentence for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from samdec_export.report.document import Case, Comparison, Output, Timing, Verdict, Violation

__all__ = ["judge_comparison", "judge_latency", "judge_origin", "judge_weights"]

Bound: TypeAlias = Literal["at most", "at least"]
Origin: TypeAlias = Literal["weights", "fp32", "onnx"]


ORIGINS: Final[dict[Origin, str]] = {
    "weights": "decoder weights",
    "fp32": "the fp32 file",
    "onnx": "the ONNX file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A threshold: its key in `gate.<precision>`, what violations call it, and how a reader does."""

    key: str
    metric: str
    title: str
    bound: Bound

    def measured(self, output: Output) -> float | None:
        """What it is about; None where the output has no such number."""
        match self.key:
            case "iou":
                return output.masks.iou_min if output.masks else None
            case "flipped":
                return output.masks.flipped if output.masks else None
            case "best_mask":
                return output.best_mask
            case "logits":
                return output.tensor.relative if output.masks else None
            case _:
                return None if output.masks else output.tensor.relative

    def allowed(self, comparison: Comparison, output: str) -> float:
        """Its value, raised where the reference itself cannot promise as much."""
        limits = comparison.limits
        table = {"iou": limits.iou, "flipped": limits.flipped, "best_mask": limits.best_mask}
        return table[self.key] if self.key in table else comparison.allowed[output]

    def worse(self, one: float, other: float) -> bool:
        """Whether the first of two numbers is the worse."""
        return one > other if self.bound == "at most" else one < other


RULES = (
    _Rule(key="logits", metric="relative error", title="largest error of {output}", bound="at most"),
    _Rule(key="iou_predictions", metric="relative error", title="largest error of {output}", bound="at most"),
    _Rule(key="iou", metric="mask IoU", title="smallest IoU of {output}", bound="at least"),
    _Rule(key="flipped", metric="flipped pixels", title="share of flipped pixels of {output}", bound="at most"),
    _Rule(
        key="best_mask", metric="best mask kept", title="share of prompts that keep their best mask", bound="at least"
    ),
)


def judge_comparison(comparison: Comparison) -> Iterator[Verdict]:
    """A verdict for what the outputs are, and one for each threshold and output."""
    yield _structure(comparison)
    for rule in RULES:
        for name in dict.fromkeys(output.name for case in comparison.cases for output in case.outputs):
            found = [
                (case, value)
                for case in comparison.cases
                for output in case.outputs
                if output.name == name and (value := rule.measured(output)) is not None
            ]
            if found:
                yield _applied(rule, comparison, name, found)


def judge_weights(artifact: str, comparisons: Iterable[Comparison]) -> Verdict:
    """Whether a file was made from the checkpoint that it was compared with."""
    findings = [finding for comparison in comparisons for finding in comparison.findings]
    told = f"{artifact} does not belong to this checkpoint: {'; '.join(findings)}."
    sentence = told if findings else f"{artifact} has the decoder weights of the checkpoint."
    return Verdict(passed=not findings, threshold="checkpoint", artifact=artifact, sentence=sentence)


def _structure(comparison: Comparison) -> Verdict:
    """Outputs that are there, finite, and of the right types and shapes; and that anything was compared."""
    broken = [
        (case, violation) for case in comparison.cases for violation in case.violations if violation.value is None
    ]
    where = f"{comparison.artifact} ({comparison.name})"
    if not comparison.cases:
        sentence = f"{where}: nothing was compared."
        return _verdict(comparison, passed=False, threshold="structure", sentence=sentence)
    if not broken:
        count = len(comparison.cases)
        sentence = f"{where}: every output is there, finite, and of its type and shape in all {count} cases."
        return _verdict(comparison, passed=True, threshold="structure", sentence=sentence)
    case, violation = broken[0]
    failed = len({id(case) for case, _ in broken})
    what = " ".join(part for part in (violation.output, violation.detail) if part)
    sentence = f"{where}, case {case.case}: {what}; {failed} of {len(comparison.cases)} cases are like that."
    return _verdict(comparison, passed=False, threshold="structure", case=case.case, sentence=sentence)


def _applied(rule: _Rule, comparison: Comparison, output: str, found: list[tuple[Case, float]]) -> Verdict:
    threshold = f"gate.{comparison.precision}.{rule.key}"
    broken = [
        (case, violation)
        for case, _ in found
        for violation in case.violations
        if (violation.output, violation.metric) == (output, rule.metric)
    ]
    title = f"{comparison.artifact} ({comparison.name}): {rule.title.format(output=output)}"
    if not broken:
        case, value = found[0]
        for other, number in found[1:]:
            case, value = (other, number) if rule.worse(number, value) else (case, value)
        limit = rule.allowed(comparison, output)
        tail = _judged_by_pixels(rule, comparison, value, limit)
        sentence = f"{title} is {value:.4g}, in case {case.case}; {threshold} asks for {rule.bound} {limit:.4g}{tail}."
        passed = True
    else:
        case, violation = max(broken, key=lambda pair: _severity(pair[1]))
        value, limit = violation.value or 0.0, violation.limit or 0.0
        count = f"{len(broken)} of {len(found)} cases fail"
        raised = _raised(rule, comparison, output, limit)
        sentence = (
            f"{title} is {value:.4g} in case {case.case}, and {threshold} asks for {rule.bound} {limit:.4g}{raised}: "
            f"{_by_how_much(rule, value, limit)}; {count}."
        )
        passed = False
    return _verdict(
        comparison,
        passed=passed,
        threshold=threshold,
        case=case.case,
        output=output,
        measured=value,
        allowed=limit,
        bound=rule.bound,
        sentence=sentence,
    )


def _severity(violation: Violation) -> float:
    return float("inf") if violation.severity is None else violation.severity


def _judged_by_pixels(rule: _Rule, comparison: Comparison, value: float, limit: float) -> str:
    """Why a number beyond its limit passed: in small masks shares say little."""
    if not rule.worse(value, limit):
        return ""
    pixels = f"gate.{comparison.precision}.pixels"
    return f", which {pixels} waives: no more than {comparison.limits.pixels} pixels of a mask flip"


def _raised(rule: _Rule, comparison: Comparison, output: str, limit: float) -> str:
    asked = comparison.limits.relative
    if rule.key == "iou_predictions" and comparison.limits.scores is not None:
        asked = comparison.limits.scores
    if rule.key not in ("logits", "iou_predictions") or limit <= asked:
        return ""
    return f" (raised from {asked:.4g}: eager fp32 is itself that far from fp64)"


def _by_how_much(rule: _Rule, value: float, limit: float) -> str:
    if rule.bound == "at least":
        return f"{limit - value:.4g} too low"
    return f"{value / limit:.3g} times as much" if limit else f"{value:.4g} too much"


def judge_origin(artifact: str, kind: Origin, found: str | None, expected: str | None) -> Verdict:
    """Whether a file was made from what it should have been made from.

    Args:
        artifact: The file.
        kind: What the two hashes are of.
        found: The hash that its record names.
        expected: The hash that it should name.
    """
    passed = found == expected
    told = (
        "as it should be" if passed else f"not {(expected or 'none')[:12]} as in this run: it was made from another one"
    )
    return Verdict(
        passed=passed,
        threshold=f"origin.{kind}",
        artifact=artifact,
        sentence=f"{artifact} names {ORIGINS[kind]} {(found or 'none')[:12]}, {told}.",
    )


def judge_latency(
    measured: Iterable[Timing], baseline: Mapping[tuple[str, int, int, int], float], ratio: float, origin: str
) -> Iterator[Verdict]:
    """A verdict for each measurement that the baseline has too, or one that says that there is none.

    Args:
        measured: What was timed in this run.
        baseline: Median seconds by file, images, prompts and points.
        ratio: The largest multiple of the baseline's time.
        origin: Where the baseline was read from.
    """
    compared = False
    for item in measured:
        key = (item.candidate, item.images, item.prompts, item.points)
        if item.median is None or not baseline.get(key):
            continue
        compared = True
        found, load = item.median / baseline[key], f"images={item.images},prompts={item.prompts},points={item.points}"
        passed = found <= ratio
        end = "" if passed else f": {1e3 * (item.median - ratio * baseline[key]):.3g} ms too slow"
        yield Verdict(
            passed=passed,
            threshold="gate.latency.ratio",
            artifact=item.candidate,
            case=load,
            measured=found,
            allowed=ratio,
            bound="at most",
            sentence=f"{item.candidate} takes {1e3 * item.median:.3g} ms for {load}, {found:.3g} times the "
            f"{1e3 * baseline[key]:.3g} ms of {origin}; gate.latency.ratio asks for at most {ratio:g}{end}.",
        )
    if not compared:
        yield Verdict(
            passed=False,
            threshold="gate.latency.baseline",
            artifact="",
            sentence=f"{origin} has no time of any file and workload that this run measured: nothing was compared.",
        )


def _verdict(
    comparison: Comparison,
    *,
    passed: bool,
    threshold: str,
    sentence: str,
    case: str = "",
    output: str = "",
    measured: float | None = None,
    allowed: float | None = None,
    bound: Bound | None = None,
) -> Verdict:
    return Verdict(
        passed=passed,
        threshold=threshold,
        artifact=comparison.artifact,
        comparison=comparison.name,
        case=case,
        output=output,
        measured=measured,
        allowed=allowed,
        bound=bound,
        sentence=sentence,
    )
