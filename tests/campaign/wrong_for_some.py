"""Graphs that are wrong for some sizes alone, or for some prompts: edits move their masks and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from edited_graph import Edit, EditedGraph, Fault, Value

__all__ = ["meanings", "sizes"]

EXTENT = 128.0

QUICK = 8
"""Prompts that a case of a quick sweep has at most."""


def _wrong_size(name: str, axis: int, size: int) -> Edit:
    return lambda g: g.where(g[name].size(axis).eq(size))


def _wrong_sizes(tensor: str, one: tuple[int, int], two: tuple[int, int]) -> Edit:
    return lambda g: g.where(g[tensor].size(one[0]).eq(one[1]) & g[tensor].size(two[0]).eq(two[1]))


def _wrong_prompt(name: str, number: int) -> Edit:
    return lambda g: g.prompts_where(g[name].index(0).eq(number - 1))


def _picture(height: int, width: int) -> Edit:
    def edit(g: EditedGraph) -> None:
        size = g["orig_im_size"]
        g.where(size.at(0, 0).eq(height) & size.at(1, 0).eq(width))

    return edit


def sizes() -> Iterator[Fault]:
    sparse, coords = "sparse_prompt_embeddings", "point_coords"
    for size in range(1, 17):
        yield Fault("sizes", f"{size} points", _wrong_size(sparse, 1, size))
    for size in (*range(2, 18), 31, 33, 45, 63, 64):
        yield Fault("sizes", f"batch {size}", _wrong_size(sparse, 0, size), full=size > QUICK)
    for size in (2, 3, 4):
        yield Fault("sizes", f"{size} images", _wrong_size(coords, 0, size), "prompts")
    for size in (2, 5, 8, 13, 16):
        yield Fault("sizes", f"{size} prompts", _wrong_size(coords, 1, size), "prompts", full=size > QUICK)
    for size in (3, 16):
        yield Fault("sizes", f"{size} points", _wrong_size(coords, 2, size), "prompts")
    for batch, points in ((1, 1), (3, 5), (3, 16), (64, 16)):
        edit = _wrong_sizes(sparse, (0, batch), (1, points))
        yield Fault("sizes", f"batch {batch} of {points} points", edit, full=batch > QUICK)
    for images, prompts in ((3, 3), (4, 16)):
        edit = _wrong_sizes(coords, (0, images), (1, prompts))
        yield Fault("sizes", f"{images} images of {prompts} prompts", edit, "prompts", full=prompts > QUICK)
    for height, width in ((32, 32), (32, 160), (160, 32), (96, 160), (65, 65), (160, 160), (33, 33), (127, 127)):
        yield Fault("sizes", f"a picture of {height} x {width}", _picture(height, width), "meta")
    yield Fault("sizes", "higher than wide", lambda g: g.where(_higher(g)), "meta")
    yield Fault("sizes", "wider than high", lambda g: g.where(~_higher(g) & ~_square(g)), "meta")
    for number in (2, 33, 64):
        yield Fault("sizes", f"prompt number {number}", _wrong_prompt(sparse, number), full=number > QUICK)
    yield Fault("sizes", "the last of several", lambda g: g.prompts_where(_last(g[sparse]) & (g[sparse].size(0) > 1)))
    yield Fault("sizes", "every 8th prompt", lambda g: g.prompts_where(_every(g[sparse].index(0), 8)))
    yield Fault(
        "sizes", "the second image", lambda g: g.where(g[coords].index(0).eq(1).raised(-1, -2, -3, -4)), "prompts"
    )


def _higher(g: EditedGraph) -> Value:
    return g["orig_im_size"].at(0, 0) > g["orig_im_size"].at(1, 0)


def _square(g: EditedGraph) -> Value:
    return g["orig_im_size"].at(0, 0).eq(g["orig_im_size"].at(1, 0))


def _last(value: Value) -> Value:
    return value.index(0).eq(value.size(0) - 1)


def _every(index: Value, step: int) -> Value:
    return index.op("Mod", index.graph.constant(np.float32(step)), fmod=1).eq(step - 1)


def _label(g: EditedGraph, label: int) -> Value:
    return g.labels.eq(label).max(-1)


def _first(g: EditedGraph, *labels: int) -> Value:
    first = g.labels.at(0, -1)
    found = first.eq(labels[0])
    for label in labels[1:]:
        found = found | first.eq(label)
    return found


def _click(g: EditedGraph) -> Value:
    return _label(g, 0) | _label(g, 1)


def _all(truth: Value) -> Value:
    return truth.min(-1)


def _corner(g: EditedGraph, label: int, axis: int) -> Value:
    """Where the corner of a box is, or far outside."""
    there = g.labels.eq(label)
    return (g.coords.at(axis, -1) * there - ~there * 1e4).max(-1)


def _swapped(g: EditedGraph) -> Value:
    return _label(g, 2) & _label(g, 3) & (_corner(g, 2, 0) > _corner(g, 3, 0)) & (_corner(g, 2, 1) > _corner(g, 3, 1))


def _padded(g: EditedGraph) -> Value:
    return g.labels.eq(-1)


def _moved_padding(g: EditedGraph) -> Value:
    return _padded(g) & ~g.coords.eq(0).min(-1)


def _beyond(axis: int, side: int) -> Edit:
    def edit(g: EditedGraph) -> None:
        along = g.coords.at(axis, -1)
        g.prompts_where((((along < 0) if side < 0 else (along > EXTENT)) & ~_padded(g) & ~g.labels.eq(-10)).max(-1))

    return edit


def _whole(g: EditedGraph) -> Value:
    return g.coords.eq(g.coords.op("Floor")).min(-1)


def _edge(g: EditedGraph) -> Value:
    return g.coords.eq(EXTENT).max(-1).max(-1)


def _one_place(g: EditedGraph) -> Value:
    return g.coords.eq(g.coords.first_for_all(2)).min(-1).min(-1) & ~_padded(g).max(-1) & (g.coords.size(2) > 1)


Truth: TypeAlias = Callable[[EditedGraph], Value]

ASKED: dict[str, Truth] = {
    "clicks": lambda g: _all(g.labels.eq(0) | g.labels.eq(1)),
    "a click and padding": lambda g: _first(g, 0, 1) & _label(g, -1),
    "a box": lambda g: _label(g, 2) & _label(g, 3),
    "a box before its clicks": lambda g: _first(g, 2) & _click(g),
    "a box after its clicks": lambda g: _label(g, 2) & _label(g, 3) & _first(g, 0, 1),
    "two boxes": lambda g: g.labels.eq(2).sum(-1) > 1.5,
    "corners swapped": _swapped,
    "labels of a box swapped": lambda g: _first(g, 3) & _label(g, 2),
    "a lone top left corner": lambda g: _label(g, 2) & ~_label(g, 3),
    "a lone bottom right corner": lambda g: _label(g, 3) & ~_label(g, 2),
    "background alone": lambda g: _all(g.labels.eq(0)),
    "foreground alone": lambda g: _all(g.labels.eq(1)),
    "padding in front": lambda g: _first(g, -1) & _click(g),
    "padding in the middle": lambda g: _first(g, 0, 1) & _label(g, -1) & (g.labels.part(-1, -1).max(-1) > -0.5),
    "padding alone": lambda g: _all(_padded(g)),
    "padding alone, anywhere": lambda g: _all(_moved_padding(g)),
    "padding with coordinates": lambda g: (_moved_padding(g) & (g.coords.min(-1) > 0)).max(-1),
    "padding at -10": lambda g: (_padded(g) & g.coords.eq(-10).min(-1)).max(-1),
    "label -10": lambda g: _label(g, -10),
    "label -2": lambda g: _label(g, -2),
    "label 4": lambda g: _label(g, 4),
    "label 7": lambda g: _label(g, 7),
    "whole pixels": lambda g: _all(_whole(g)) & ~_label(g, -1),
    "the far edge": _edge,
    "the last pixel": lambda g: g.coords.eq(EXTENT - 1).max(-1).max(-1),
    "the origin": lambda g: (g.coords.eq(0).min(-1) & ~_padded(g)).max(-1),
    "one place twice": _one_place,
    "a box outside": lambda g: (g.labels.eq(2) & (g.coords.at(0, -1) > EXTENT)).max(-1),
}


def _where(truth: Truth) -> Edit:
    return lambda g: g.prompts_where(truth(g))


def _points(change: Any) -> Edit:
    return lambda g: g.feed("point_coords", change)


def _labels(change: Any) -> Edit:
    return lambda g: g.feed("point_labels", lambda labels: change(labels.float()).op("Cast", to=7))


def _clipped(low: float, high: float) -> Any:
    return lambda value: value.op("Clip", *(value.graph.constant(np.float32(end)) for end in (low, high)))


TAKEN: dict[str, Edit] = {
    "fractions dropped": _points(lambda xy: xy.op("Floor")),
    "positions of 11 bits": _points(lambda xy: xy.op("Cast", to=10).float()),
    "half a pixel forgotten": _points(lambda xy: xy - 0.5),
    "positions held inside the picture": _points(_clipped(0, EXTENT)),
    "positions not below 0": _points(lambda xy: xy.op("Relu")),
    "x and y swapped": _points(lambda xy: xy.reversed(3)),
    "points in reverse, labels not": _points(lambda xy: xy.reversed(2)),
    "labels 0 and 1 swapped": _labels(lambda n: n + n.eq(0) - n.eq(1)),
    "labels 2 and 3 swapped": _labels(lambda n: n + n.eq(2) - n.eq(3)),
    "labels 2 and 3 read as clicks": _labels(lambda n: n - (n.eq(2) | n.eq(3)) * 2),
    "unknown labels are padding": _labels(lambda n: n - (n > 3.5) * (n + 1) - (n < -1.5) * (n + 1)),
    "labels below 0 are padding": _labels(lambda n: n.op("Max", n.graph.constant(np.float32(-1)))),
    "labels above 3 are 3": _labels(lambda n: n.op("Min", n.graph.constant(np.float32(3)))),
    "padding is background": _labels(lambda n: n.op("Max", n.graph.constant(np.float32(0)))),
    "padding is a position": _labels(lambda n: n - n.eq(-1)),
}


def meanings() -> Iterator[Fault]:
    for name, truth in ASKED.items():
        yield Fault("meanings", name, _where(truth), "prompts")
    for name, edit in TAKEN.items():
        yield Fault("meanings", name, edit, "prompts")
    for name in ("fractions dropped", "positions held inside the picture"):
        yield Fault("meanings", name, TAKEN[name], "meta")
