"""Exported files and engines, timed side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

from samdec_export.bench.measure import Workload
from samdec_export.bench.options import BenchOptions
from samdec_export.bench.plot import draw
from samdec_export.bench.side_by_side import Benchmarked, bench_entries, parse_entry
from samdec_export.core.files import FilePath, as_path, optional_path

__all__ = ["bench"]


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
