"""What was compared, and what came of it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

__all__ = [
    "Case",
    "Comparison",
    "Floor",
    "Histogram",
    "Limits",
    "MaskPair",
    "Masks",
    "Number",
    "Output",
    "Tensor",
    "Verdict",
    "Violation",
]

Number: TypeAlias = float | None
"""A measured number; None where it is infinite or not a number."""

WIDEST = 300.0
"""Of powers of ten: what float64 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a comparison allows, as `validation.tolerances.Tolerance` explains, and where the numbers come from."""

    relative: float
    margin: float
    iou: float
    flipped: float
    pixels: int
    best_mask: float
    reason: str = ""
    scores: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The reference's own distance to float64 for one output, as a share of the span, and the case with it."""

    relative: float
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Distances of one output, as `validation.metrics.TensorMetrics`; a `psnr` of None is that of equal tensors."""

    max_abs: Number
    mean_abs: Number
    relative: Number
    cosine: Number
    psnr: Number
    span: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Distances of thresholded masks, as `validation.metrics.MaskMetrics`."""

    iou_min: float
    iou_mean: float
    flipped: float
    flipped_most: int
    undecided: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Every distance of one output: `masks` for mask logits, `best_mask` for scores of several masks."""

    name: str
    tensor: Tensor
    masks: Masks | None = None
    best_mask: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that a case breaks; `severity` is how many times over, None where the structure is wrong.

    `value` is what was found and `limit` what was allowed; None where the structure is wrong.
    """

    output: str
    metric: str
    detail: str
    severity: Number = None
    value: Number = None
    limit: Number = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one set of inputs showed; `sizes` holds the length of every dynamic axis."""

    case: str
    sizes: Mapping[str, int]
    passed: bool
    outputs: tuple[Output, ...]
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How errors of one output are spread.

    Args:
        edges: log10 of |error|, ascending: one more than there are bins.
        counts: Values in each bin.
        exact: Values without any error, which no bin holds.
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
class Comparison:
    """A candidate against its reference, over every case.

    Args:
        artifact: The name of the artifact that is judged.
        candidate: The engine that ran it.
        reference: What is right.
        precision: That of the artifact.
        passed: Whether nothing is out of its limits.
        limits: What its precision allows.
        allowed: By output, the largest relative error that passes: the limit, or more where `floors` call for it.
        floors: By output, the reference's own rounding.
        cases: What was compared.
        errors: By output, the spread of its errors over all cases.
        findings: Reasons to fail that belong to no case.
    """

    artifact: str
    candidate: str
    reference: str
    precision: str
    passed: bool
    limits: Limits
    allowed: Mapping[str, float]
    floors: Mapping[str, Floor]
    cases: tuple[Case, ...]
    errors: Mapping[str, Histogram] | None = None
    findings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What verdicts and masks call it."""
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
    bound: Literal["at most", "at least"] | None = None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """One mask as the reference has it and as the candidate has it.

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
