"""The commands on engines and for model servers: trt, engines, bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from samdec_export import api
from samdec_export.api import BuildOptions, ServingOptions
from samdec_export.cli.flags import AsJson, Checkpoint, ConvertTo, Out, print_json, takes
from samdec_export.cli.terminal import console, size
from samdec_export.core.options import ExportOptions

__all__ = ["bundle_app", "engines_command", "trt_command"]


@takes
def trt_command(
    artifact: Annotated[
        Path | None, typer.Argument(help="Exported file.", show_default=f"the one in {ExportOptions.out}/")
    ] = None,
    ckpt: Checkpoint = None,
    *,
    to: ConvertTo,
    out: Out = None,
    options: BuildOptions,
    as_json: AsJson = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine, converted first where asked for, and check the precision that it got."""
    precision = to.precision if to.asked else None
    done = api.build_engine(artifact, options, ckpt, precision=precision, out=out)
    print_json(done.to_json()) if as_json else engine_built(done)


def engine_built(done: api.EngineBuilt) -> None:
    """Print what was built, for which GPUs and sizes, and the proof of its precision."""
    screen, record = console(), done.engine.record
    screen.print(
        f"{done.engine.path}  {size(done.engine.path.stat().st_size)}, {record.engine} {record.version}, "
        + ", ".join(record.targets)
    )
    for tensor in record.tensors:
        shape = ", ".join(str(axis) for axis in tensor["shape"])
        screen.print(f"  {tensor['kind']:<6}  {tensor['name']:<26} {tensor['dtype']:<6} ({shape})")
    for profile in record.profiles:
        ranges = ", ".join(f"{dim.name} {dim.min}..{dim.opt}..{dim.max}" for dim in profile)
        screen.print(f"Profile (min..opt..max): {ranges}")
    table = Table("layer", "types")
    for kind, counts in record.histogram.items():
        table.add_row(kind, ", ".join(f"{dtype} {count}" for dtype, count in counts.items()))
    screen.print(table)
    for warning in record.warnings:
        screen.print(f"warning: {warning}")
    screen.print(f"Parsed and built in {record.seconds:.1f} s from {done.onnx}.")


def engines_command(
    folder: Annotated[Path, typer.Argument(help="Folder of engines.")] = ExportOptions.out, as_json: AsJson = False
) -> None:
    """List the engines of a folder, and which of them this machine can run."""
    found = api.engines(folder)
    print_json([entry.to_json() for entry in found]) if as_json else listed(found)


def listed(found: Sequence[api.EngineEntry]) -> None:
    """Print two lines for each engine file: what it is, and whether it runs here."""
    screen = console()
    for entry in found:
        screen.print(str(entry.path))
        if entry.engine:
            record = entry.engine.record
            built = f"{record.engine} {record.version} for {', '.join(record.targets)}"
            screen.print(f"  {built}; {record.source.precision}, from {record.onnx}")
        screen.print(f"  cannot run here: {entry.obstacle}" if entry.obstacle else "  can run here")
    if not found:
        screen.print("No engines.")


bundle_app = typer.Typer(no_args_is_help=True, help="Make a folder that a model server reads.")


@bundle_app.callback()
def bundle() -> None:
    """Make a folder that a model server reads."""


@bundle_app.command("triton")
@takes
def triton_command(
    files: Annotated[
        list[Path], typer.Argument(help="Exported .onnx files, and .engine files of TensorRT.", show_default=False)
    ],
    options: ServingOptions,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server, with a client that checks the answers."""
    done = api.bundle(files, options, out)
    print_json(done.to_json()) if as_json else bundled(done)


def bundled(done: api.Bundled) -> None:
    """Print a line for each model and each version, and how to go on."""
    print(f"{done.path}  {len(done.models)} models for Triton Inference Server")
    for entry in done.models:
        model = entry.model
        axis = model.batch_axis
        batch = f"batches of up to {model.max_batch_size} {axis.name}" if axis else "no batching across requests"
        print(f"  {model.name}  {model.backend}, {batch}")
        for number, file in enumerate(entry.files, start=1):
            print(f"    {number}  {file.path}")
    print(f"How to start and ask it: {done.path / 'README.md'}")
