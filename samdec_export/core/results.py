"""What a comparison finds: one type for each thing, from the first metric to report.json.

Numbers that are infinite or not a number, which JSON lacks, are None.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Final, TypeAlias

__all__ = [
    "STRUCTURE",
    "CaseResult",
    "Floor",
    "Histogram",
    "Limit",
    "MaskMetrics",
    "MaskPair",
    "Number",
    "OutputMetrics",
    "TensorMetrics",
    "Tilt",
    "Tolerance",
    "ValidationResult",
    "Violation",
    "severity_of",
]

Number: TypeAlias = float | None
"""A measured number; None where it is infinite or not a number."""

STRUCTURE: Final = ("outputs", "structure", "run", "reference", "undecided pixels")
"""Metrics of violations that leave a case, or an output, without numbers that can be judged."""

WIDEST = 300.0
"""Of powers of ten: what float64 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Limits of one precision, by the keys that `gate.<precision>` has.

    Args:
        logits: Largest error of a mask logit, as a share of the reference's span.
        iou_predictions: The same for predicted IoUs, whose span is at least 1.
        margin: A mask logit nearer than this share of the span to the threshold is undecided: the reference's own
            rounding decides there.
        iou: Smallest IoU of any mask, at logit 0.
        flipped: Largest share of flipped mask pixels in a case.
        pixels: As many may flip in any mask, whatever share of it they are: one pixel is a large share of a small mask.
        best_mask: Smallest share of prompts that keep their best-scored mask; a mask whose score is within
            `iou_predictions` of the best one's is as good.
        reason: Where the numbers come from.
    """

    logits: float
    iou_predictions: float
    margin: float
    iou: float
    flipped: float
    pixels: int
    best_mask: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one output may differ by in one case: that of the tolerance, or more where its floor calls for it.

    All are shares of the reference's span: the largest error, how near to the threshold a mask logit is undecided, and
    as `floor` the reference's own distance to float64; None where the limits held without it, or it cannot be measured.
    """

    relative: float
    margin: float
    floor: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The reference's own largest distance to float64 for one output, as a share of the span, and the case with it."""

    relative: float
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMetrics:
    """How far a tensor is from its reference.

    `span` is the reference's scale: max - min, or the largest magnitude, or a least span, whichever is most.
    `relative` is max_abs / span. `psnr` is 20 log10(span / rms error) in dB; None for equal tensors.
    """

    max_abs: Number
    mean_abs: Number
    relative: Number
    cosine: Number
    psnr: Number
    span: Number

    @property
    def error(self) -> float:
        """`relative`, or infinity."""
        return inf if self.relative is None else self.relative


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskMetrics:
    """How thresholded masks differ: worst and mean IoU over masks, share of pixels flipped.

    `flipped_most` is the number of pixels that flip in the mask with most. `undecided` is the share of pixels nearer to
    the threshold than the margin; they count as agreeing.
    """

    iou_min: float
    iou_mean: float
    flipped: float
    flipped_most: int
    undecided: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tilt:
    """Errors that all point one way, which rounding does not make.

    Args:
        offset: Mean signed error, as a share of the span.
        scale: How much too large the values are, as a share of themselves.
        right: How far a picture is shifted to the right, in its pixels.
        down: The same downwards.
    """

    offset: float = 0.0
    scale: float = 0.0
    right: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMetrics:
    """Every distance of one output: `masks` for mask logits, `best_mask` for scores of several masks."""

    name: str
    tensor: TensorMetrics
    tilt: Tilt = Tilt()
    masks: MaskMetrics | None = None
    best_mask: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that a case breaks; `severity` is how many times over, None where it is infinite.

    `value` is what was found and `limit` what was allowed; None where the structure is wrong.
    """

    output: str
    metric: str
    detail: str
    severity: Number = None
    value: Number = None
    limit: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What one set of inputs showed: `outputs` is empty where the structure is wrong, `limits` are by output."""

    case: str
    sizes: Mapping[str, int]
    passed: bool
    outputs: tuple[OutputMetrics, ...]
    violations: tuple[Violation, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.passed == bool(self.violations):
            raise ValueError(f"case {self.case} passed, or has violations: not both and not neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How errors of one output are spread.

    `edges` are log10 of |error|, ascending, one more than bins; no bin holds the `exact` values, which have no error.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exact: int = 0

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} bins need {len(self.counts) + 1} edges, not {len(self.edges)}")
        if any(low >= high for low, high in pairwise(self.edges)) or any(abs(edge) > WIDEST for edge in self.edges):
            raise ValueError("edges are powers of ten in ascending order")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """One mask as the reference has it and as the candidate has it, undecided pixels as the reference.

    `reference` and `candidate` are its pixels row by row, a bit each, the first in the highest bit of the first byte
    (`numpy.packbits` of the flattened mask), in base64.
    """

    artifact: str
    comparison: str = ""
    case: str
    output: str = ""
    image: int = 0
    prompt: int
    mask: int
    height: int
    width: int
    reference: str
    candidate: str
    flipped: int
    iou: float

    def __post_init__(self) -> None:
        size = (self.height * self.width + 7) // 8
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a mask of {self.height} x {self.width} pixels")
        for packed in (self.reference, self.candidate):
            if len(b64decode(packed, validate=True)) != size:
                raise ValueError(f"a mask of {self.height} x {self.width} pixels is packed in {size} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """A candidate against its reference, over every case.

    `floors` are, by output, the largest that were measured: that of the first case, for scale, and those of the cases
    that broke the limits; a floor loosens the limits of its own case alone. `findings` are reasons to fail that belong
    to no case. `tilts` are, by output, which way its errors point on average over all cases. `errors` and the worst
    `masks`, whose artifact is not named yet, are there if they were asked for.
    """

    candidate: str
    reference: str
    limits: Tolerance
    floors: Mapping[str, Floor]
    cases: tuple[CaseResult, ...]
    findings: tuple[str, ...] = ()
    tilts: Mapping[str, Tilt] = field(default_factory=dict)
    errors: Mapping[str, Histogram] = field(default_factory=dict)
    masks: tuple[MaskPair, ...] = ()

    @property
    def name(self) -> str:
        """Return what verdicts and masks call it."""
        return f"{self.candidate} against {self.reference}"

    @property
    def passed(self) -> bool:
        """Something was compared, and nothing is out of its limits."""
        return bool(self.cases) and not self.findings and all(case.passed for case in self.cases)

    @property
    def worst(self) -> CaseResult | None:
        """Return the failed case with the gravest violation, or else the one with the largest relative error."""
        return max(self.cases, key=_gravity, default=None)

    @property
    def allowed(self) -> dict[str, float]:
        """Return, by output, the largest relative error that some case allows."""
        found: dict[str, float] = {}
        for case in self.cases:
            for name, limit in case.limits.items():
                found[name] = max(limit.relative, found.get(name, 0.0))
        return found


def severity_of(violation: Violation) -> float:
    """Return how many times over a limit is broken."""
    return inf if violation.severity is None else violation.severity


def _gravity(case: CaseResult) -> tuple[float, float]:
    severity = max(map(severity_of, case.violations), default=0.0)
    return severity, max((output.tensor.error for output in case.outputs), default=0.0)
