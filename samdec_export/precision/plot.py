"""A picture of a range audit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samdec_export.core.dtypes import FORMATS, LowPrecision
from samdec_export.core.errors import DependencyError, UsageError
from samdec_export.core.files import check_target, staging
from samdec_export.precision.audit import Audited
from samdec_export.precision.ranges import TensorRange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["check_picture", "draw"]

PICTURES = (".png", ".svg", ".pdf")

ANNOTATED = 5
"""Tensors whose names stand in the picture."""

FAR_LIMIT = 1e8
"""A limit this many times above everything stands in the legend alone: drawn, it would leave no room for the rest."""

OFFSETS = [(side * dx, dy) for dy in (16, 32, 48, 64, 80, 96, 112) for dx in (8, 30, 60) for side in (1, -1)]
"""Where a name may stand beside its point, in points of 1/72 inch, the nearest first."""

SMALLEST = 1e-6
"""What is smaller is left out: the picture is about what is large."""

VALUE, WEIGHT, SQUARE, OVERFLOW = "tab:blue", "0.65", "tab:orange", "tab:red"


def check_picture(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise a UsageError if `path` is no place for a picture, or one of the run's own inputs."""
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"Cannot draw {path}: unknown kind of picture.", f"Name a file with {', '.join(PICTURES)}.")
    check_target(path, inputs)
    with staging(path.parent):
        pass


def draw(done: Audited, path: Path) -> None:
    """Draw the largest magnitude of each tensor in graph order against what a precision holds, and name the worst.

    The suffix of `path` decides what kind of picture.

    Raises:
        DependencyError, UsageError, GraphError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("matplotlib is not installed.", "pip install 'samdec-export[plot]'.") from error
    figure = Figure(figsize=(12, 6), layout="constrained")
    axis = figure.subplots()
    _draw_points(axis, done.ranges, done.precision)
    _draw_limit(axis, done.ranges, done.precision)
    axis.set_xlabel("tensor, in graph order")
    axis.set_ylabel("largest magnitude")
    axis.set_title(f"{done.path.name}: largest magnitudes over {len(done.cases)} cases")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    named = done.worst(ANNOTATED)
    if (square := done.largest_square) and square not in named:
        named.append(square)
    _name(figure, axis, done.ranges, named)
    path = Path(os.path.realpath(path))
    with staging(path.parent) as scratch:
        figure.savefig(scratch / path.name, dpi=110)
        os.replace(scratch / path.name, path)


def _draw_points(axis: Axes, ranges: Sequence[TensorRange], precision: LowPrecision) -> None:
    places = list(enumerate(ranges))
    values = [(x, item.absmax, item.overflow(precision)) for x, item in places if item.kind != "weight"]
    weights = [(x, item.absmax, item.overflow(precision)) for x, item in places if item.kind == "weight"]
    squares = [(x, item.squared_absmax or 0.0, item.squares_overflow(precision)) for x, item in places]
    for points, marker, size, color, label in (
        (weights, "s", 7, WEIGHT, "weights"),
        (values, "o", 16, VALUE, "inputs and node outputs"),
        (squares, "D", 34, SQUARE, "LayerNormalization:\n$(x - \\mathrm{mean})^2$ of its input"),
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
    name = f"{precision} largest: {limits.largest:.5g}"
    if limits.largest < FAR_LIMIT * top:
        axis.axhline(limits.largest, color=OVERFLOW, linewidth=1.2, linestyle="--", label=name)
        top = max(top, limits.largest)
    else:
        axis.plot([], [], color=OVERFLOW, linewidth=1.2, linestyle="--", label=f"{name}\n(far above)")
    axis.set_ylim(max(lowest, SMALLEST) / 3, 30 * top)


def _name(figure: Figure, axis: Axes, ranges: Sequence[TensorRange], worst: Sequence[TensorRange]) -> None:
    """Write names near their points, each at the nearest place where it covers neither a name nor a point."""
    from matplotlib.text import Text

    figure.draw_without_rendering()  # settles the layout
    inside = axis.get_window_extent()
    places = {item.tensor: (x, y) for x, item in enumerate(ranges) if (y := item.reach) > 0}
    points = [(x, y) for x, item in enumerate(ranges) for y in (item.absmax, item.squared_absmax or 0.0) if y > 0]
    dots = axis.transData.transform(points).tolist()
    taken: list[Bbox] = []
    for item in sorted((item for item in worst if item.tensor in places), key=lambda item: places[item.tensor]):
        for dx, dy in OFFSETS:
            note = axis.annotate(
                item.node,
                places[item.tensor],
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                fontsize="small",
                arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.7, "shrinkB": 3},
            )
            note.get_window_extent()  # puts it into its place
            box = Text.get_window_extent(note).padded(6)  # without the line to the point
            start, end = axis.transData.transform(places[item.tensor]).tolist(), (box.x0 if dx > 0 else box.x1, box.y0)
            line = [[a + part / 10 * (b - a) for a, b in zip(start, end, strict=True)] for part in range(1, 10)]
            fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
            covers = box.count_contains(dots) + box.count_overlaps(taken)
            if fits and not covers and not any(other.count_contains(line) for other in taken):
                taken.append(box)
                dots += line
                break
            note.remove()
