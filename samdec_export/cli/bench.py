"""The command that times: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from samdec_export import api
from samdec_export.api import BenchOptions
from samdec_export.cli.flags import AsJson, Checkpoint, print_json, takes
from samdec_export.cli.terminal import console

__all__ = ["bench_command"]


@takes
def bench_command(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            help="Exported files and engines; FILE.onnx@ort-cuda runs on the GPU, @eager and @compile time its module.",
            show_default=False,
        ),
    ],
    ckpt: Checkpoint = None,
    *,
    options: BenchOptions,
    plot: Annotated[Path | None, typer.Option(help="Draw cost against prompts (.png).", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Time files side by side: one process each, interleaved, beside the speed of a plain matrix product."""
    done = api.bench(artifacts, ckpt, options, plot=plot)
    print_json(done.to_json()) if as_json else benchmarked(done)


def benchmarked(done: api.Benchmarked) -> None:
    """Print a row for each candidate and workload (images x prompts x points); ratios are to the first candidate."""
    screen = console()
    table = Table("candidate", "I x P x N")
    for column in ("ms a run", "p90", "p99", "prompts/s", "x first", "Gflop", "Gflop/s", "% of matmul", "peak GB"):
        table.add_column(column, justify="right")
    first = {item.workload: item.median for item in reversed(done.measurements) if item.seconds}
    for item in done.measurements:
        load = item.workload
        head = (item.candidate, f"{load.images} x {load.prompts} x {load.points}")
        if not item.seconds:
            table.add_row(*head, item.unsupported)
            continue
        cost = done.costs.get((item.candidate, load))
        speed = cost.flops / item.median if cost else 0.0
        counted = (cost.flops / 1e9, speed / 1e9) if cost else ()
        share = f"{100 * speed / done.peak_flops:.3g}" if cost and item.candidate not in done.on_gpu else ""
        table.add_row(
            *head,
            *(f"{1e3 * seconds:.4g}" for seconds in item.percentiles.values()),
            f"{item.prompts_per_second:.4g}",
            f"{first[load] / item.median:.2f}",
            *([f"{value:.3g}" for value in counted] or [""] * 2),
            share,
            f"{item.peak_bytes / 1e9:.2f}",
        )
    screen.print(table)
    screen.print(
        f"{done.threads} threads; a plain matrix product ran at {done.peak_flops / 1e9:.0f} Gflop/s beside them."
    )
