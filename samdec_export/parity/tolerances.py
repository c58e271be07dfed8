"""What may differ, and why: one row for each precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from samdec_export.core.dtypes import Precision
from samdec_export.core.results import Limit, Number, Tilt, Tolerance
from samdec_export.core.signature import Content

__all__ = [
    "FLOOR_CAP",
    "FLOOR_FACTOR",
    "TILTS",
    "TOLERANCES",
    "UNDECIDED_CAP",
    "limit_of",
    "tilt_findings",
    "tilt_limits",
]


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
        iou=0.7,
        flipped=2e-2,
        pixels=32,
        best_mask=1.0,
        reason="Every result is rounded to 8 bits, eight times as coarse as fp16. Seeded full-size weights: 7.6e-3 of "
        "the span, 0.4% of the pixels, IoU 0.986; with every matrix four times as large 2.6e-2, 1.0%, 0.944.",
    ),
}

FLOOR_FACTOR: Final = 4.0
"""No limit of a case is below this many times the reference's own distance to fp64 in it: engine and reference are both
that far from the truth, and their largest errors need not be at the same value. With weights that amplify rounding the
floor, not the table, decides; reports say so."""

FLOOR_CAP: Final = 2.5e-4
"""A reference that is further than this share of its span from float64 is none: what it says of such inputs is its own
rounding. Decoders have 3e-7 to 4e-7, seeded and trained."""

UNDECIDED_CAP: Final = 0.02
"""A larger share of pixels than this may not be left to the reference's own rounding."""

TILTS: Final = {"offset": (0.03, 0.15), "scale": (0.06, 0.3), "shift": (1.0, 2.0)}
"""What rounding explains of errors that point one way on average over n cases, a + b / sqrt(n) times what an output may
differ by: mean signed error, factor, and shift in pixels. What differs by chance from case to case averages out. Honest
files stay below two thirds of it (docs/numerics.md)."""

FEW: Final = 2.0
"""So many times as large a factor is explained of scores: it is fitted to three of them a prompt, not to a picture."""


def tilt_limits(tilt: Tilt, allowed: float, cases: int) -> dict[str, float]:
    """Return how large an offset, a scale and a shift of an output rounding explains.

    Args:
        tilt: On average over the cases: it tells a picture from scores.
        allowed: What the output may differ by, as a share of the span, on average over the cases.
        cases: How many there are.
    """
    limits = {name: allowed * (always + once / math.sqrt(cases)) for name, (always, once) in TILTS.items()}
    if tilt.right == tilt.down == 0:  # no picture
        limits["scale"] *= FEW
    return limits


def tilt_findings(output: str, tilt: Tilt, allowed: float, cases: int) -> Iterator[str]:
    """Yield how the errors of an output point one way, where that is more than rounding explains.

    Args:
        output: Its name.
        tilt: On average over the cases.
        allowed: What it may differ by, as a share of the span, on average over the cases.
        cases: How many there are.
    """
    limits = tilt_limits(tilt, allowed, cases)
    found = {
        "offset": (abs(tilt.offset), f"is {tilt.offset:+.2g} of its span off on average"),
        "scale": (abs(tilt.scale), f"is {1 + tilt.scale:.7g} times what it should be"),
        "shift": (
            max(abs(tilt.right), abs(tilt.down)),
            f"is shifted by {tilt.right:+.2g} pixels to the right and {tilt.down:+.2g} down",
        ),
    }
    for name, (size, sentence) in found.items():
        if not size <= limits[name]:
            yield f"{output} {sentence} over {cases} cases; rounding explains {limits[name]:.2g}"


def limit_of(tolerance: Tolerance, content: Content, floor: Number = None) -> Limit:
    """Return what an output may differ by in a case; its floor is the reference's own distance to float64, if known."""
    asked = tolerance.iou_predictions if content == "scores" else tolerance.logits
    raised = FLOOR_FACTOR * (floor or 0.0)
    return Limit(relative=max(asked, raised), margin=max(tolerance.margin, raised), floor=floor)
