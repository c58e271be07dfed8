"""The flow of a range audit: an exported file and inputs in, what a 16-bit precision would not hold out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from samdec_export.core.dtypes import FORMATS, LowPrecision
from samdec_export.core.errors import NoRecordError
from samdec_export.core.log import track
from samdec_export.core.options import SweepName
from samdec_export.core.signature import Axis, Dim, DType, Signature, TensorSpec
from samdec_export.export.dataflow import load_fp32
from samdec_export.export.onnx_file import TensorSummary, describe, open_artifact
from samdec_export.parity.cases import only_case, read_feeds
from samdec_export.parity.options import SweepOptions
from samdec_export.parity.sweeps import usual_feeds
from samdec_export.precision.ranges import TensorRange, audit_ranges

__all__ = ["Audited", "audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What every float32 tensor of a graph held over the named cases, to be judged for `precision`."""

    path: Path
    precision: LowPrecision
    cases: tuple[str, ...]
    ranges: tuple[TensorRange, ...]

    @property
    def overflowing(self) -> tuple[TensorRange, ...]:
        """Return tensors with a value that the precision does not hold."""
        return tuple(item for item in self.ranges if item.overflow(self.precision))

    @property
    def overflowing_squares(self) -> tuple[TensorRange, ...]:
        """Return LayerNormalizations whose variance the precision does not hold."""
        return tuple(item for item in self.ranges if item.squares_overflow(self.precision))

    @property
    def closest(self) -> TensorRange:
        """Return the tensor with the largest finite magnitude: the smallest margin."""
        return max(self.ranges, key=lambda item: item.absmax)

    @property
    def largest_square(self) -> TensorRange | None:
        """Return the LayerNormalization with the largest square, if there is one."""
        normalised = [item for item in self.ranges if item.squared_absmax is not None]
        return max(normalised, key=lambda item: item.squared_absmax or 0.0, default=None)

    def worst(self, count: int) -> list[TensorRange]:
        """Return up to `count` tensors: those that are broken already or would be silently, then by magnitude.

        Tensors that only hand on values are left out: the tensors that they were handed are there.
        """

        def gravity(item: TensorRange) -> tuple[bool, bool, float]:
            return item.nonfinite > 0, item.squares_overflow(self.precision), item.absmax

        return sorted((item for item in self.ranges if not item.moves), key=gravity, reverse=True)[:count]

    def to_json(self) -> dict[str, Any]:
        """Return every tensor in graph order, with its judgement."""
        precision = self.precision
        return {
            "path": str(self.path),
            "precision": precision,
            "largest": FORMATS[precision].largest,
            "smallest_normal": FORMATS[precision].smallest_normal,
            "cases": list(self.cases),
            "overflowing": [item.tensor for item in self.overflowing],
            "overflowing_squares": [item.tensor for item in self.overflowing_squares],
            "tensors": [
                {
                    **asdict(item),
                    "overflow": item.overflow(precision),
                    "squares_overflow": item.squares_overflow(precision),
                    "margin": item.margin(precision) if item.absmax else None,  # JSON has no infinity
                    "below_normal": item.below_normal(precision),
                }
                for item in self.ranges
            ],
        }


def audit(
    path: Path,
    precision: LowPrecision = "fp16",
    *,
    feeds: Path | None = None,
    case: str | None = None,
    seed: int = SweepOptions.seed,
    sweep: SweepName = SweepOptions.sweep,
) -> Audited:
    """Run an exported fp32 file and look at every float32 tensor on the way, to judge it for `precision`.

    A file that samdec-export did not write needs recorded inputs, `feeds`, instead of a sweep.

    Raises:
        NoRecordError: There are no feeds, and the file does not say what its inputs mean.
        GraphError: It cannot be read or run, or is not fp32 any more.
        UsageError: The inputs do not fit, or there is no such case.
        DependencyError: ONNX Runtime is not installed.
    """
    load_fp32(path)  # before the inputs are looked at: they differ too in a file that is not fp32
    signature = _signature(path, feeds)
    cases = read_feeds(feeds, signature) if feeds else usual_feeds(signature, sweep, seed)
    if case is not None:
        cases = only_case(cases, case)
    ranges = audit_ranges(path, (item.make() for item in track(cases, f"Auditing {path.name}")))
    return Audited(path=path, precision=precision, cases=tuple(item.name for item in cases), ranges=ranges)


def _signature(path: Path, feeds: Path | None) -> Signature:
    try:
        return open_artifact(path).record.signature
    except NoRecordError as error:
        if feeds is None:
            raise NoRecordError(
                f"{path} carries no record of what its inputs mean, so none can be made for it.",
                "Record some with numpy.savez(path, **inputs) and give them as {feeds}.",
            ) from error
        return Signature(inputs=tuple(_spec(tensor) for tensor in describe(path).inputs), outputs=())


def _spec(tensor: TensorSummary) -> TensorSpec:
    """Return an input as the file itself declares it: enough to check recorded inputs, not to make any."""

    def axis(size: str | int, position: int) -> Axis:
        if isinstance(size, int) and size > 0:
            return size
        return Dim(name=str(size) if size else f"{tensor.name}:{position}", min=1, opt=1, max=1 << 31)

    shape = tuple(axis(size, position) for position, size in enumerate(tensor.shape))
    return TensorSpec(name=tensor.name, dtype=cast(DType, tensor.dtype), shape=shape, content="embedding")
