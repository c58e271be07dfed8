"""The commands on engines: trt, engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from samdec_export.api import BuildOptions
from samdec_export.cli.flags import AsJson, Checkpoint, ConvertTo, Out, print_json, takes
from samdec_export.cli.terminal import console, size
from samdec_export.core.options import ExportOptions

if TYPE_CHECKING:
    from samdec_export.api import EngineBuilt, EngineEntry

__all__ = ["engines_command", "trt_command"]


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
    from samdec_export import api

    precision = to.precision if to.asked else None
    done = api.build_engine(artifact, options, ckpt, precision=precision, out=out)
    print_json(done.to_json()) if as_json else engine_built(done)


def engine_built(done: EngineBuilt) -> None:
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
    from samdec_export import api

    found = api.engines(folder)
    print_json([entry.to_json() for entry in found]) if as_json else listed(found)


def listed(found: Sequence[EngineEntry]) -> None:
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
