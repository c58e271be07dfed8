"""What a reader wants to see of a comparison beside its numbers: how errors are spread, and the worst masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samdec_export.core.runner import Array, Outputs
from samdec_export.core.signature import TensorSpec
from samdec_export.parity.metrics import decide

__all__ = ["EDGES", "ErrorSpread", "Evidence", "WorstMask"]

EDGES: Final = tuple(number / 4 for number in range(-40, 13))
"""log10 of the errors between which they are counted: four bins for a power of ten."""

KEPT: Final = 4
"""Masks of a comparison that are kept, the worst first."""


@dataclass(slots=True)
class ErrorSpread:
    """Errors of one output by size: a count for each pair of neighbours in EDGES; what lies outside is in the last."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) - 1, np.int64))
    exact: int = 0

    def add(self, reference: Array, candidate: Array) -> None:
        """Count the errors of one case."""
        error = np.abs(candidate.astype(np.float64) - reference).reshape(-1)
        wrong = error[error > 0]
        self.exact += error.size - wrong.size
        logarithms = np.clip(np.log10(wrong), EDGES[0], EDGES[-1])
        self.counts += np.histogram(logarithms, EDGES)[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorstMask:
    """One mask (height, width) of a case as reference and candidate have it, undecided pixels as the reference."""

    case: str
    output: str
    index: tuple[int, ...]
    reference: NDArray[np.bool_]
    candidate: NDArray[np.bool_]
    flipped: int
    iou: float


class Evidence:
    """Gathers over the cases of one comparison."""

    def __init__(self) -> None:
        self.errors: dict[str, ErrorSpread] = {}
        self.masks: list[WorstMask] = []

    def add(
        self,
        case: str,
        specs: Sequence[TensorSpec],
        reference: Outputs,
        candidate: Outputs,
        margins: Mapping[str, float],
    ) -> None:
        """Take in one case.

        Args:
            case: Its name.
            specs: What the graph returns.
            reference: Outputs that are right.
            candidate: Outputs to judge, of the right structure.
            margins: By output, how near to the threshold a logit is on no side.
        """
        for spec in specs:
            right, judged = reference[spec.name], candidate[spec.name]
            self.errors.setdefault(spec.name, ErrorSpread()).add(right, judged)
            if spec.content == "masks":
                self._keep_worst(case, spec.name, right, judged, margins[spec.name])

    def _keep_worst(self, case: str, output: str, reference: Array, candidate: Array, margin: float) -> None:
        found = []
        for index in np.ndindex(reference.shape[:-2]):
            inside, guess = decide(reference[index], candidate[index], margin)
            flipped = int(np.count_nonzero(inside != guess))
            if flipped:
                iou = float(np.count_nonzero(inside & guess) / np.count_nonzero(inside | guess))
                found.append(
                    WorstMask(
                        case=case,
                        output=output,
                        index=index,
                        reference=inside,
                        candidate=guess,
                        flipped=flipped,
                        iou=iou,
                    )
                )
        self.masks = sorted([*self.masks, *found], key=lambda mask: mask.iou)[:KEPT]
