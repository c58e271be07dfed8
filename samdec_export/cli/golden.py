"""The commands on goldens; `cli.py` adds them to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdec_export.cli.flags import AsJson, Checkpoint, print_json
from samdec_export.core.options import SweepName

__all__ = ["golden_command", "record_command"]


def record_command(
    artifact: Annotated[Path, typer.Argument(help="Exported file.", show_default=False)],
    ckpt: Checkpoint = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write.", show_default="FILE.golden.npz beside it")
    ] = None,
    feeds: Annotated[
        Path | None, typer.Option(help="Recorded inputs (.npz) instead of a sweep.", show_default=False)
    ] = None,
    sweep: Annotated[SweepName, typer.Option(help="How wide to record.")] = "quick",
    seed: Annotated[int, typer.Option(min=0, help="What the inputs follow from.")] = 0,
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="Store a sweep's inputs too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record eager PyTorch's answers, for validate --golden where there is no torch and no checkpoint."""
    from samdec_export import api
    from samdec_export.cli import display_golden

    done = api.record(artifact, ckpt, out=out, feeds=feeds, sweep=sweep, seed=seed, keep_inputs=keep_inputs)
    print_json(done.to_json()) if as_json else display_golden.shown(done)


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
    from samdec_export.cli import display_golden

    found = api.golden(golden, polygraphy_inputs=inputs, polygraphy_outputs=outputs)
    print_json(found.to_json()) if as_json else display_golden.shown(found)
