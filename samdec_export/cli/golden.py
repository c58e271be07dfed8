"""The commands on goldens: record, golden."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from samdec_export.api import CaseOptions
from samdec_export.cli.flags import AsJson, Checkpoint, Feeds, Seed, Sweep, print_json
from samdec_export.cli.terminal import console, printable, size

if TYPE_CHECKING:
    from samdec_export.api import Recorded

__all__ = ["golden_command", "record_command"]


def record_command(
    artifact: Annotated[Path, typer.Argument(help="Exported file.", show_default=False)],
    ckpt: Checkpoint = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write.", show_default="FILE.golden.npz beside it")
    ] = None,
    feeds: Feeds = None,
    sweep: Sweep = CaseOptions.sweep,
    seed: Seed = CaseOptions.seed,
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="Store a sweep's inputs too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record eager PyTorch's answers, for validate --golden where there is no torch and no checkpoint."""
    from samdec_export import api

    done = api.record(artifact, ckpt, out=out, feeds=feeds, sweep=sweep, seed=seed, keep_inputs=keep_inputs)
    print_json(done.to_json()) if as_json else shown(done)


def golden_command(
    golden: Annotated[Path, typer.Argument(help="What record wrote.", show_default=False)],
    inputs: Annotated[
        Path | None,
        typer.Option("--polygraphy-inputs", help="Write what polygraphy run --load-inputs takes.", show_default=False),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option("--polygraphy-outputs", help="Write what its --load-outputs takes.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a golden holds, and write it as Polygraphy's files."""
    from samdec_export import api

    found = api.golden(golden, polygraphy_inputs=inputs, polygraphy_outputs=outputs)
    print_json(found.to_json()) if as_json else shown(found)


def shown(found: Recorded) -> None:
    """Print where a golden is, what was recorded for which weights, and each case's distance to float64."""
    screen, record = console(), found.golden.record
    artifact = record.artifact
    source = artifact.checkpoint
    table = Table("case", "inputs", "floors")
    for case in record.cases:
        floors = ", ".join(f"{name} {floor:.1e}" for name, floor in case.floors.items())
        table.add_row(printable(case.name), "stored" if case.stored else f"seed {record.seed}", floors)
    for line in (
        f"{found.path}  {size(found.path.stat().st_size)}, {len(record.cases)} cases of {record.reference}",
        f"Model: {artifact.model}, graph {artifact.graph}, masks {artifact.masks}; recorded for {record.file}",
        f"Checkpoint: {source.file or 'embedded weights'} ({source.layout})",
        f"Decoder weights: sha256 {source.weights_sha256}",
        "Made with: " + ", ".join(f"{tool} {version}" for tool, version in record.tools.items()),
    ):
        screen.print(printable(line))
    screen.print(table)
