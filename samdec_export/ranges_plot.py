"""A picture of a range audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samdec_export.errors import DependencyError
from samdec_export.passes.ranges import TensorRange
from samdec_export.precision import FORMATS, LowPrecision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["plot_ranges"]

FAR_LIMIT = 1e8
"""A limit this many times above everything is told in the legend alone: drawn, it would leave no room for the rest."""

VALUE, WEIGHT, SQUARE, OVERFLOW = "tab:blue", "0.65", "tab:orange", "tab:red"


def plot_ranges(
    ranges: Sequence[TensorRange], worst: Sequence[TensorRange], precision: LowPrecision, title: str, path: Path
) -> None:
    """Draw the largest magnitude of each tensor in graph order against what a precision holds.

    Args:
        ranges: Every tensor, in graph order.
        worst: Those to name.
        precision: Whose limit to draw.
        title: What stands above.
        path: The file; its suffix decides what kind of picture.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("matplotlib is not installed.", "pip install 'samdec-export[plot]'.") from error
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)  # so that texts can be measured, whatever is written in the end
    axis = figure.subplots()
    _draw_points(axis, ranges, precision)
    _draw_limit(axis, ranges, precision)
    axis.set_xlabel("tensor, in graph order")
    axis.set_ylabel("largest magnitude")
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    _name(figure, axis, ranges, worst)
    figure.savefig(path, dpi=110)


def _draw_points(axis: Axes, ranges: Sequence[TensorRange], precision: LowPrecision) -> None:
    places = list(enumerate(ranges))
    values = [(x, item.absmax, item.overflow(precision)) for x, item in places if item.kind != "weight"]
    weights = [(x, item.absmax, item.overflow(precision)) for x, item in places if item.kind == "weight"]
    squares = [(x, item.squared_absmax or 0.0, item.squares_overflow(precision)) for x, item in places]
    for points, marker, size, color, label in (
        (weights, ".", 14, WEIGHT, "weights"),
        (values, "o", 16, VALUE, "inputs and node outputs"),
        (squares, "D", 34, SQUARE, "LayerNormalization:\n$(x - mean)^2$ of its input"),
    ):
        shown = [(x, y, beyond) for x, y, beyond in points if y > 0]  # zero has no place on a log axis
        for wanted, tint, name in ((False, color, label), (True, OVERFLOW, f"overflow: {label}")):
            if chosen := [(x, y) for x, y, beyond in shown if beyond == wanted]:
                xs, ys = zip(*chosen, strict=True)
                axis.scatter(xs, ys, s=size, marker=marker, color=tint, label=name, zorder=3)


def _draw_limit(axis: Axes, ranges: Sequence[TensorRange], precision: LowPrecision) -> None:
    limits = FORMATS[precision]
    top = max(1.0, *(item.reach for item in ranges))
    lowest = min((item.absmax for item in ranges if item.absmax), default=1.0)
    axis.set_yscale("log")
    name = f"{precision} largest: {limits.largest:.6g}"
    if limits.largest < FAR_LIMIT * top:
        axis.axhline(limits.largest, color=OVERFLOW, linewidth=1.2, linestyle="--", label=name)
        top = max(top, limits.largest)
    else:
        axis.plot([], [], color=OVERFLOW, linewidth=1.2, linestyle="--", label=f"{name}\n(far above)")
    axis.set_ylim(max(lowest, 1e-8 * top) / 3, 10 * top)


def _name(figure: Figure, axis: Axes, ranges: Sequence[TensorRange], worst: Sequence[TensorRange]) -> None:
    """Write names near their points, each at the first place where it covers no other name and stays inside."""
    figure.draw_without_rendering()
    inside = axis.get_window_extent()
    taken: list[Bbox] = []
    index = {item.tensor: x for x, item in enumerate(ranges)}
    offsets = [(side * 10, height) for height in (14, 28, 42, 56, 70, -16, -30) for side in (1, -1)]
    for item in sorted(worst, key=lambda item: index[item.tensor]):
        for dx, dy in offsets:
            note = axis.annotate(
                item.node if item.kind == "node" else item.tensor,
                (index[item.tensor], item.reach),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                fontsize="small",
                arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.7, "shrinkB": 3},
            )
            box = note.get_window_extent()
            if inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) and not box.count_overlaps(taken):
                taken.append(box.padded(2))
                break
            note.remove()
