"""How long files take, and how large their tensors get."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from samdec_export.bench.measure import Workload
from samdec_export.bench.options import BenchOptions
from samdec_export.bench.plot import draw
from samdec_export.bench.side_by_side import Benchmarked, bench_entries, parse_entry
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.core.options import SweepName
from samdec_export.parity.options import CaseOptions
from samdec_export.precision.audit import Audited, audit
from samdec_export.precision.plot import check_picture
from samdec_export.precision.plot import draw as draw_ranges

__all__ = ["bench", "ranges"]


def bench(
    files: Sequence[FilePath],
    checkpoint: FilePath | None = None,
    options: BenchOptions = BenchOptions(),  # noqa: B008  # frozen
    *,
    plot: FilePath | None = None,
) -> Benchmarked:
    """Time exported files and engines side by side, each in a process of its own, in every combination of sizes.

    Args:
        files: What to time; `FILE@eager` and `FILE@compile` time the module that it was exported from, `FILE@ort-cuda`
            runs it on the GPU.
        checkpoint: The weights, for those two.
        options: Sizes to run, threads and rounds.
        plot: A picture of cost against prompts to write.

    Raises:
        SamdecError: A file is not of this project, or a candidate's process stopped.
    """
    entries = [parse_entry(os.fspath(file), optional_path(checkpoint)) for file in files]
    workloads = Workload.grid(options.images, options.prompts, options.points)
    done = bench_entries(entries, workloads, threads=options.threads, repeats=options.repeats)
    if plot is not None:
        draw(done, as_path(plot))
    return done


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
        draw_ranges(done, picture)
    return done
