"""What is bound by which limit: the one table that verdicts on cases and those of a run's gate are made by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal, TypeAlias

from samdec_export.core.results import Limit, Number, OutputMetrics, Tolerance, Violation

__all__ = ["RULES", "Bound", "Rule", "violations_of"]

Bound: TypeAlias = Literal["at most", "at least"]

RELATIVE: Final = "relative error"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is bound by which limit.

    Args:
        key: In `gate.<precision>`, and of `Tolerance`.
        metric: What violations call it.
        title: What a verdict calls it, with `{output}` for the output's name.
        bound: From which side.
        path: Where `OutputMetrics` has it.
    """

    key: str
    metric: str
    title: str
    bound: Bound
    path: str

    def binds(self, output: OutputMetrics) -> bool:
        """Return whether an output has the metric; relative errors of masks and of scores have a rule each."""
        if self.metric == RELATIVE:
            return (self.key == "logits") == (output.masks is not None)
        return getattr(output, self.path.partition(".")[0]) is not None

    def measured(self, output: OutputMetrics) -> Number:
        """Return the metric of an output that the rule binds."""
        value: Number = attrgetter(self.path)(output)
        return value

    @property
    def waivable(self) -> bool:
        """Return whether `pixels` overrules it: shares of a small mask say little."""
        return self.key in ("iou", "flipped")

    def asked(self, tolerance: Tolerance) -> float:
        """Return the limit before any floor."""
        limit: float = getattr(tolerance, self.key)
        return limit

    def allowed(self, tolerance: Tolerance, limit: Limit) -> float:
        """Return the limit of an output in a case."""
        return limit.relative if self.metric == RELATIVE else self.asked(tolerance)

    def raised(self, tolerance: Tolerance, limit: Limit) -> bool:
        """Return whether the reference's own rounding loosened the rule for an output in a case."""
        if self.waivable:
            return limit.margin > tolerance.margin
        asked = tolerance.iou_predictions if self.key == "best_mask" else self.asked(tolerance)
        return limit.relative > asked

    def worse(self, one: Number, other: Number) -> bool:
        """Return whether the first of two numbers is the worse; None is worst."""
        if one is None or other is None:
            return one is None and other is not None
        return one > other if self.bound == "at most" else one < other


RULES: Final = (
    Rule("logits", RELATIVE, "largest error of {output}", "at most", "tensor.relative"),
    Rule("iou_predictions", RELATIVE, "largest error of {output}", "at most", "tensor.relative"),
    Rule("iou", "mask IoU", "smallest IoU of {output}", "at least", "masks.iou_min"),
    Rule("flipped", "flipped pixels", "share of flipped pixels of {output}", "at most", "masks.flipped"),
    Rule("best_mask", "best mask kept", "share of prompts that keep their best mask", "at least", "best_mask"),
)


def violations_of(output: OutputMetrics, tolerance: Tolerance, limit: Limit) -> Iterator[Violation]:
    """Find every rule that an output breaks in a case."""
    for rule in RULES:
        waived = rule.waivable and output.masks is not None and output.masks.flipped_most <= tolerance.pixels
        if rule.binds(output) and not waived:
            yield from _broken(rule, output, rule.allowed(tolerance, limit))


def _broken(rule: Rule, output: OutputMetrics, limit: float) -> Iterator[Violation]:
    value = rule.measured(output)
    if value is not None and (value <= limit if rule.bound == "at most" else value >= limit):
        return
    if rule.bound == "at most":
        severity = value / limit if value is not None and limit else None
        detail = f"{'inf' if value is None else f'{value:.3g}'} > {limit:.3g}"
    else:
        severity = (1 - value) / (1 - limit) if value is not None and limit < 1 else None
        detail = f"{'inf' if value is None else f'{value:.6g}'} < {limit:.6g}"
    yield Violation(output=output.name, metric=rule.metric, detail=detail, severity=severity, value=value, limit=limit)
