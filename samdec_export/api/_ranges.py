"""What every float tensor of a graph holds, and what a 16-bit precision would not."""

from __future__ import annotations

from pathlib import Path

from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.core.options import SweepName
from samdec_export.parity.options import CaseOptions
from samdec_export.precision.audit import Audited, audit
from samdec_export.precision.plot import check_picture, draw

__all__ = ["ranges"]


def ranges(
    file: FilePath,
    precision: LowPrecision = "fp16",
    *,
    feeds: FilePath | None = None,
    case: str | None = None,
    seed: int = CaseOptions.seed,
    sweep: SweepName = CaseOptions.sweep,
    plot: FilePath | None = None,
) -> Audited:
    """Run an exported fp32 file and measure every float32 tensor on the way.

    Args:
        file: The ONNX file. One that samdec-export did not write needs `feeds`.
        precision: What to judge for.
        feeds: Recorded inputs, an `.npz` file, instead of a sweep.
        case: The only case to run, by name.
        seed: Seed of the generated inputs.
        sweep: How wide to go.
        plot: A picture of the magnitudes in graph order to write: .png, .svg or .pdf.

    Raises:
        NoRecordError: There are no feeds, and the file does not tell what its inputs mean.
        GraphError: It cannot be read or run, or is not fp32 any more.
        UsageError: The inputs do not fit, or there is no such case.
        DependencyError: ONNX Runtime or, for a picture, matplotlib is not installed.
    """
    path, recorded, picture = as_path(file), optional_path(feeds), optional_path(plot)
    if picture:
        check_picture(picture, (path, Path(f"{path}.json"), recorded))
    asked = CaseOptions(feeds=recorded, case=case, seed=seed, sweep=sweep)
    done = audit(path, precision, feeds=asked.feeds, case=asked.case, seed=asked.seed, sweep=asked.sweep)
    if picture:
        draw(done, picture)
    return done
