"""What may differ, and why: one row for each precision."""

from __future__ import annotations

from typing import Final

from samdec_export.core.dtypes import Precision
from samdec_export.core.results import Limit, Number, Tolerance
from samdec_export.core.signature import Content

__all__ = ["FLOOR_FACTOR", "TOLERANCES", "limit_of"]


TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "fp32": Tolerance(
        logits=1e-5,
        iou_predictions=1e-5,
        margin=1e-5,
        iou=0.9999,
        flipped=1e-5,
        pixels=0,
        best_mask=1.0,
        reason="Two fp32 engines sum in different orders. Full-size decoders differ by up to 3e-6 of the span, "
        "as far as eager fp32 is from eager fp64 (docs/numerics.md); 1e-5 leaves a factor of three.",
    ),
    "fp16": Tolerance(
        logits=1e-2,
        iou_predictions=1e-2,
        margin=1e-5,
        iou=0.9,
        flipped=3e-3,
        pixels=4,
        best_mask=1.0,
        reason="Every result is rounded to 11 bits. Seeded full-size weights: 1.1e-3 of the span, 0.05% of the pixels, "
        "IoU 0.9986; with every matrix four times as large 7.6e-3, 0.13%, 0.992. About as good as torch half eager.",
    ),
    "bf16": Tolerance(
        logits=5e-2,
        iou_predictions=5e-2,
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
"""No limit of a case is below this many times the reference's own distance to fp64 in it: engine and reference are both
that far from the truth, and their largest errors need not be at the same value. With weights that amplify rounding the
floor, not the table, decides; reports say so."""


def limit_of(tolerance: Tolerance, content: Content, floor: Number = None) -> Limit:
    """Return what an output may differ by in a case; its floor is the reference's own distance to float64, if known."""
    asked = tolerance.iou_predictions if content == "scores" else tolerance.logits
    raised = FLOOR_FACTOR * (floor or 0.0)
    return Limit(relative=max(asked, raised), margin=max(tolerance.margin, raised), floor=floor)
