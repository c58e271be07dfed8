"""The commands that compare, and that record what to compare with: validate, record, golden."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from samdec_export import api
from samdec_export.api import CaseOptions
from samdec_export.cli.flags import AsJson, Case, Checkpoint, Feeds, Seed, Sweep, flag, print_json
from samdec_export.cli.terminal import console, printable, size
from samdec_export.core.files import check_target, write_text
from samdec_export.core.options import Provider, SweepName

__all__ = ["golden_command", "record_command", "validate_command", "validated"]

NUMBERS = ("cases", "max abs", "mean abs", "relative", "allowed", "cosine", "PSNR dB")
COLUMNS = (*NUMBERS, "mask IoU", "flipped", "best mask")


def validate_command(
    artifact: Annotated[Path, typer.Argument(help="Exported file, or engine.", show_default=False)],
    ckpt: Checkpoint = None,
    golden: Annotated[
        Path | None,
        typer.Option(help="What record wrote: inputs and reference without torch or checkpoint.", show_default=False),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(help="Judge what polygraphy run --save-outputs wrote, not the file itself.", show_default=False),
    ] = None,
    feeds: Feeds = None,
    case: Case = None,
    sweep: Annotated[SweepName | None, flag(CaseOptions, "sweep", show_default="full")] = None,
    seed: Annotated[int | None, flag(CaseOptions, "seed", show_default=str(CaseOptions.seed))] = None,
    provider: Annotated[Provider | None, typer.Option(help="Where ONNX Runtime runs it.", show_default="cpu")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the JSON report to a file.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Compare an exported file or an engine with eager PyTorch; exit 7 where they differ."""
    if report:
        check_target(report, (artifact, Path(f"{artifact}.json"), ckpt, golden, outputs, feeds))
    done = api.validate(
        artifact,
        ckpt,
        golden=golden,
        outputs=outputs,
        feeds=feeds,
        case=case,
        seed=seed,
        sweep=sweep,
        provider=provider,
    )
    print_json(done.to_json()) if as_json else validated(done)
    if report:
        write_text(report, json.dumps(done.to_json(), indent=2) + "\n")
    done.require()


def validated(done: api.Validated) -> None:
    """Print each comparison, and what could not be compared."""
    screen = console()
    for result in done.results:
        _print_report(result, screen)
    for note in done.notes:
        screen.print(note)


def _print_report(result: api.ValidationResult, screen: Console) -> None:
    """Print a row for each output: its worst over all cases, beside what is allowed."""
    limit = result.limits
    failed = sum(not case.passed for case in result.cases)
    title = f"{result.candidate} against {result.reference}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("output", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name in dict.fromkeys(output.name for case in result.cases for output in case.outputs):
        table.add_row(*_row(name, result.cases, result.allowed[name]))
    table.add_row("allowed", *[""] * len(NUMBERS), f"{limit.iou:g}", f"{limit.flipped:.1e}", f"{limit.best_mask:g}")
    screen.print(table)
    screen.print(f"{len(result.cases)} cases, {failed} failed.")
    if any(floor.relative for floor in result.floors.values()):
        floors = ", ".join(f"{name} {floor.relative:.1e}" for name, floor in result.floors.items())
        screen.print(f"For scale: eager fp32 differs from fp64 by {floors}.")
    for finding in result.findings:
        screen.print(finding, style="red")


def _row(name: str, cases: Sequence[api.CaseResult], allowed: float) -> tuple[str, ...]:
    outputs = [output for case in cases for output in case.outputs if output.name == name]
    tensors = [output.tensor for output in outputs]
    masks = [output.masks for output in outputs if output.masks]
    kept = [output.best_mask for output in outputs if output.best_mask is not None]
    psnr = min((tensor.psnr for tensor in tensors if tensor.psnr is not None), default=None)
    return (
        name,
        str(len(outputs)),
        _most(tensor.max_abs for tensor in tensors),
        _most(tensor.mean_abs for tensor in tensors),
        _most(tensor.relative for tensor in tensors),
        f"{allowed:.1e}",
        f"{min(tensor.cosine or 0.0 for tensor in tensors):.8f}",
        "exact" if psnr is None else f"{psnr:.1f}",
        f"{min(mask.iou_min for mask in masks):.6f}" if masks else "",
        f"{max(mask.flipped for mask in masks):.1e}" if masks else "",
        f"{min(kept):g}" if kept else "",
    )


def _most(values: Iterable[float | None]) -> str:
    return f"{max(math.inf if value is None else value for value in values):.1e}"


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
    found = api.golden(golden, polygraphy_inputs=inputs, polygraphy_outputs=outputs)
    print_json(found.to_json()) if as_json else shown(found)


def shown(found: api.Recorded) -> None:
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
