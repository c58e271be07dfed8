"""What may differ, and why: one row for each precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from samdec_export.core.dtypes import Precision
from samdec_export.core.signature import Content

__all__ = ["FLOOR_FACTOR", "TOLERANCES", "Tolerance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Limits of one precision.

    Args:
        relative: Largest error of any output, as a share of the reference's span.
        scores: The same for predicted IoUs, whose span is at least 1; None for `relative`.
        margin: A mask logit nearer than this share of the span to the threshold is on no side: the reference's own
            rounding decides there.
        iou: Smallest IoU of any mask, at logit 0.
        flipped: Largest share of flipped mask pixels in a case.
        pixels: As many may flip in any mask, whatever share of it they are: of a small mask one pixel is much.
        best_mask: Smallest share of prompts that keep their best-scored mask; a mask whose score is within `relative`
            of the best one's is as good.
        reason: Where the numbers come from.
    """

    relative: float
    margin: float
    iou: float
    flipped: float
    pixels: int
    best_mask: float
    reason: str
    scores: float | None = None

    def of(self, content: Content) -> Tolerance:
        """The limits of an output of that content."""
        return replace(self, relative=self.scores) if content == "scores" and self.scores is not None else self

    def above(self, floor: float) -> Tolerance:
        """The same, where the reference cannot promise more than `floor`, a share of the span."""
        return replace(self, relative=max(self.relative, floor), margin=max(self.margin, floor))


TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "fp32": Tolerance(
        relative=1e-5,
        margin=1e-5,
        iou=0.9999,
        flipped=1e-5,
        pixels=0,
        best_mask=1.0,
        reason="Two fp32 engines sum in different orders. Full-size decoders differ by up to 3e-6 of the span, "
        "as far as eager fp32 is from eager fp64 (docs/numerics.md); 1e-5 leaves a factor of three.",
    ),
    "fp16": Tolerance(
        relative=1e-2,
        margin=1e-5,
        iou=0.9,
        flipped=3e-3,
        pixels=4,
        best_mask=1.0,
        reason="Every result is rounded to 11 bits. Seeded full-size weights: 1.1e-3 of the span, 0.05% of the pixels, "
        "IoU 0.9986; with every matrix four times as large 7.6e-3, 0.13%, 0.992. About as good as torch half eager.",
    ),
    "bf16": Tolerance(
        relative=5e-2,
        margin=1e-5,
        iou=0.8,
        flipped=2e-2,
        pixels=16,
        best_mask=1.0,
        reason="Every result is rounded to 8 bits, eight times as coarse as fp16. Seeded full-size weights: 7.6e-3 of "
        "the span, 0.4% of the pixels, IoU 0.986; with every matrix four times as large 2.6e-2, 1.0%, 0.944.",
    ),
}

FLOOR_FACTOR: Final = 4.0
"""No limit is below this many times the reference's own distance to fp64: engine and reference are both that far
from the truth, and the largest error of one case is not that of every case. With weights that amplify rounding the
floor, not the table, decides; reports say so."""
