"""What a validation found, as the report's document holds it: plain values, arrays as counts and packed bits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from samdec_export.core.dtypes import Precision

if TYPE_CHECKING:
    from samdec_export.parity.comparisons import Validated
    from samdec_export.parity.evidence import ErrorSpread, WorstMask
    from samdec_export.parity.validate import ValidationResult

__all__ = ["found_by"]

AXIS = re.compile(r"(\w+)=(\d+)")
"""How a sweep's case names the size of an axis."""


def found_by(done: Validated, artifact: str, precision: Precision) -> dict[str, Any]:
    """Comparisons, worst masks, notes and the command that replays the worst case, as JSON.

    Args:
        done: The validation, with evidence.
        artifact: The name of the file that was judged.
        precision: Its precision.
    """
    masks = [mask for result in done.results for mask in _masks(result, artifact)]
    from samdec_export.parity.summary import finite

    found: dict[str, Any] = finite(
        {
            "comparisons": [_comparison(result, artifact, precision) for result in done.results],
            "masks": masks,
            "notes": [f"{artifact}: {note}" for note in done.notes],
            "replay": done.replay,
        }
    )
    return found


def _comparison(result: ValidationResult, artifact: str, precision: Precision) -> dict[str, Any]:
    errors = result.evidence.errors if result.evidence else {}
    return {
        "artifact": artifact,
        "candidate": result.candidate,
        "reference": result.reference,
        "precision": precision,
        "passed": result.passed,
        "limits": asdict(result.tolerance),
        "allowed": {name: limit.relative for name, limit in result.limits.items()},
        "floors": {name: asdict(floor) for name, floor in result.floors.items()},
        "cases": [
            {
                **asdict(case),
                "passed": case.passed,
                "sizes": {axis: int(size) for axis, size in AXIS.findall(case.case)},
            }
            for case in result.cases
        ],
        "errors": {name: _histogram(spread) for name, spread in errors.items()},
        "findings": list(result.findings),
    }


def _histogram(spread: ErrorSpread) -> dict[str, Any]:
    """Without the empty bins at both ends; one bin at least."""
    from samdec_export.parity.evidence import EDGES

    filled = [number for number, count in enumerate(spread.counts) if count] or [0]
    first, last = filled[0], filled[-1] + 1
    counts = [int(count) for count in spread.counts[first:last]]
    return {"edges": list(EDGES[first : last + 1]), "counts": counts, "exact": spread.exact}


def _masks(result: ValidationResult, artifact: str) -> Iterator[dict[str, Any]]:
    from samdec_export.report.masks import pack_mask

    found: list[WorstMask] = result.evidence.masks if result.evidence else []
    for mask in found:
        *image, prompt, number = mask.index
        height, width = mask.reference.shape
        yield {
            "artifact": artifact,
            "comparison": f"{result.candidate} against {result.reference}",
            "case": mask.case,
            "output": mask.output,
            "image": image[0] if image else 0,
            "prompt": prompt,
            "mask": number,
            "height": height,
            "width": width,
            "reference": pack_mask(mask.reference),
            "candidate": pack_mask(mask.candidate),
            "flipped": mask.flipped,
            "iou": mask.iou,
        }
