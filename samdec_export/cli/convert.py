"""The commands on precisions: convert, ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from samdec_export import api
from samdec_export.api import CaseOptions, Conversion, ConvertOptions
from samdec_export.cli.flags import (
    AsJson,
    Case,
    Checkpoint,
    ConvertTo,
    Feeds,
    NoValidate,
    Out,
    Seed,
    Sweep,
    print_json,
    takes,
)
from samdec_export.cli.terminal import console, kept_lines, shares, size
from samdec_export.cli.validate import validated
from samdec_export.core.choices import options_of
from samdec_export.core.dtypes import FORMATS, LowPrecision

__all__ = ["convert_command", "converted", "ranges_command"]

Artifact = Annotated[Path, typer.Argument(help="Exported fp32 file.", show_default=False)]


@takes
def convert_command(
    artifact: Artifact,
    ckpt: Checkpoint = None,
    *,
    to: ConvertTo,
    options: ConvertOptions,
    feeds: Feeds = None,
    out: Out = None,
    sweep: Sweep = CaseOptions.sweep,
    no_validate: NoValidate = False,
    as_json: AsJson = False,
) -> None:
    """Convert an exported file to fp16 or bf16, and measure in masks what that costs."""
    wanted = options_of(Conversion, options, precision=to.precision)
    done = api.convert(artifact, wanted, ckpt, out=out, feeds=feeds, sweep=sweep, validate=not no_validate)
    print_json(done.to_json()) if as_json else converted(done)
    if done.validated:
        done.validated.require()


def converted(done: api.Converted) -> None:
    """Print what stayed in fp32 and why, what a search found, and how far the result is from eager."""
    screen, file = console(), done.file
    own, parent = done.artifact.path.stat().st_size, file.parent.stat().st_size
    screen.print(f"{done.artifact.path}  {size(own)}, {own / parent:.0%} of {file.parent.name}, {file.casts} casts")
    screen.print(f"Matrix products: {shares(file.shares)}")
    for line in kept_lines(done.artifact.record.kept):
        screen.print(line)
    if found := file.search:
        screen.print(
            f"Search: {found.before:.3%} of the mask pixels flipped, {found.after:.3%} with {len(found.nodes)} nodes "
            f"more in fp32 (wanted: {found.target:.3%}; {found.measured} trials)"
        )
        for unit in found.units:
            rest = f" to {unit.nodes[-1]} ({len(unit.nodes)} nodes)" if len(unit.nodes) > 1 else ""
            screen.print(f"  {unit.without:.3%} without {unit.nodes[0]}{rest}")
    if done.validated:
        validated(done.validated)


def ranges_command(
    artifact: Artifact,
    precision: Annotated[LowPrecision, typer.Option("--for", help="The precision to judge for.")] = "fp16",
    feeds: Feeds = None,
    case: Case = None,
    sweep: Sweep = CaseOptions.sweep,
    seed: Seed = CaseOptions.seed,
    top: Annotated[int, typer.Option(min=1, help="Tensors to show, the worst first.")] = 12,
    plot: Annotated[
        Path | None, typer.Option(help="Draw magnitudes in graph order (.png, .svg or .pdf).", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how large every float tensor of a graph gets, and judge what a 16-bit precision would not hold."""
    done = api.ranges(artifact, precision, feeds=feeds, case=case, seed=seed, sweep=sweep, plot=plot)
    print_json(done.to_json()) if as_json else audited(done, top)


def audited(done: api.Audited, top: int) -> None:
    """Print the `top` worst tensors against what the precision holds, then the sums over every tensor.

    The square is that of a LayerNormalization's centred input; "below normal" is a share of the values that are not 0.
    """
    screen, precision = console(), done.precision
    table = Table("tensor", "node", "operator")
    table.columns[0].overflow = "fold"
    for column in ("absmax", "margin", "square", "below normal"):
        table.add_column(column, justify="right")
    for item in done.worst(top):
        table.add_row(
            item.tensor,
            item.node if item.kind == "node" else "",
            item.op or item.kind,
            f"{item.absmax:.4g}" + (f", {item.nonfinite} inf or NaN" if item.nonfinite else ""),
            f"{item.margin(precision):.3g}",
            "" if item.squared_absmax is None else f"{item.squared_absmax:.4g}",
            f"{100 * item.below_normal(precision):.2g}%" if item.below[precision] else "0",
        )
    screen.print(table)
    limit, closest = FORMATS[precision].largest, done.closest
    screen.print(
        f"{len(done.ranges)} float tensors over {len(done.cases)} cases: {len(done.overflowing)} would overflow "
        f"{precision} (above {limit:.6g}); the smallest margin is {closest.margin(precision):.3g}, at {closest.tensor}."
    )
    if square := done.largest_square:
        count = len(done.overflowing_squares)
        screen.print(
            f"LayerNormalization: the variance of {count} would overflow if computed in {precision}; the largest "
            f"square is {square.squared_absmax:.4g}, at {square.node}."
        )
    if broken := [item.tensor for item in done.ranges if item.nonfinite]:
        screen.print(f"Infinite or not a number in fp32 already: {len(broken)} tensors, the first {broken[0]}.")
