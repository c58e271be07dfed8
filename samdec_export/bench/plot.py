"""Pictures of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from samdec_export.bench.measure import Measurement
from samdec_export.core.errors import DependencyError

__all__ = ["plot_cost"]


def plot_cost(measurements: Sequence[Measurement], path: Path) -> None:
    """Draw the cost of a prompt against the number of prompts: a line for each candidate, a panel for each of points.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("matplotlib is not installed.", "pip install 'samdec-export[plot]'.") from error
    measured = [item for item in measurements if item.seconds]
    panels = sorted({(item.workload.images, item.workload.points) for item in measured})
    figure = Figure(figsize=(4.5 * len(panels) + 1, 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (images, points) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(item.candidate for item in measured):
            line = [
                item
                for item in measured
                if item.candidate == name and (item.workload.images, item.workload.points) == (images, points)
            ]
            prompts = [item.workload.prompts for item in line]
            scale = [1e3 / (item.workload.images * item.workload.prompts) for item in line]
            middle = [factor * item.median for factor, item in zip(scale, line, strict=True)]
            low, high = (
                [factor * item.spread[end] for factor, item in zip(scale, line, strict=True)] for end in (0, 1)
            )
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
    figure.savefig(path, dpi=110)
