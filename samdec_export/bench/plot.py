"""Pictures of benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

from samdec_export.bench.side_by_side import Benchmarked
from samdec_export.core.errors import DependencyError
from samdec_export.core.files import staging

__all__ = ["draw"]


def draw(done: Benchmarked, path: Path) -> None:
    """Draw the cost of a prompt against the number of prompts: a line for each candidate, a panel for each of points.

    Raises:
        DependencyError, UsageError, GraphError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("matplotlib is not installed.", "pip install 'samdec-export[plot]'.") from error
    measured = [item for item in done.measurements if item.seconds]
    panels = sorted({(item.workload.images, item.workload.points) for item in measured})
    figure = Figure(figsize=(4.5 * len(panels) + 1, 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (images, points) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(item.candidate for item in measured):
            wanted = (name, images, points)
            line = [it for it in measured if (it.candidate, it.workload.images, it.workload.points) == wanted]
            prompts = [item.workload.prompts for item in line]
            middle = [1e3 * item.per_prompt for item in line]
            low, high = ([1e3 * item.spread[end] / (images * item.workload.prompts) for item in line] for end in (0, 1))
            (drawn,) = axis.plot(prompts, middle, marker="o", label=name)
            axis.fill_between(prompts, low, high, color=drawn.get_color(), alpha=0.2)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({item.workload.prompts for item in measured}), minor=False)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("prompts per image")
        axis.set_title(f"{points} points, {images} image{'s' if images > 1 else ''}")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms per prompt (median, quartiles shaded)")
    axes[-1].legend(fontsize="small")
    with staging(path.parent) as scratch:
        figure.savefig(scratch / path.name, dpi=110)
        os.replace(scratch / path.name, path)
