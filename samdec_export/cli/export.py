"""The commands that export, and that show what is there: onnx, inspect, models, doctor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from samdec_export import api
from samdec_export.api import CaseOptions, Conversion, GraphOptions
from samdec_export.cli.convert import converted
from samdec_export.cli.flags import (
    AsJson,
    Checkpoint,
    ConvertTo,
    Model,
    NoValidate,
    Sweep,
    flag,
    print_json,
    takes,
)
from samdec_export.cli.terminal import console, kept_lines, printable, shares, size, tensor_lines
from samdec_export.cli.validate import validated
from samdec_export.core.log import log
from samdec_export.core.options import ExportOptions

__all__ = ["doctor_command", "inspect_command", "models_command", "onnx_command"]

OPS_SHOWN = 10


@takes
def onnx_command(
    ckpt: Checkpoint = None,
    model: Model = None,
    *,
    options: GraphOptions,
    out: Annotated[Path, flag(ExportOptions, "out")] = ExportOptions.out,
    sweep: Sweep = CaseOptions.sweep,
    no_validate: NoValidate = False,
    to: ConvertTo,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint's decoder as simplified ONNX, and validate it against eager PyTorch."""
    if ckpt is None and model is None:
        log.info("No checkpoint: exporting the embedded sam_toy, which was trained on drawn shapes.")
    wanted = Conversion(precision=to.precision) if to.asked else None
    done = api.export(ckpt, model, options=options, out=out, sweep=sweep, validate=not no_validate)
    failed = done.validated is not None and not done.validated.result.passed
    if not as_json:
        exported(done)
    elif failed or wanted is None:
        print_json(done.to_json())
    if done.validated:
        done.validated.require()
    if wanted is None:
        return
    typed = api.convert(done.artifact.path, wanted, ckpt, sweep=sweep, validate=not no_validate)
    print_json({**done.to_json(), "converted": typed.to_json()}) if as_json else converted(typed)
    if typed.validated:
        typed.validated.require()


def exported(done: api.Exported) -> None:
    """Print what was written, how simplification changed it, and how far it is from eager."""
    screen = console()
    screen.print(f"{done.artifact.path}  {size(done.after.bytes)}, opset {done.after.opset}")
    for line in tensor_lines(done.after):
        screen.print(line)
    screen.print(f"Operators: {done.before.nodes} traced, {done.after.nodes} after simplification.")
    table = Table("operator", "traced", "simplified")
    before, after = done.before.ops, done.after.ops
    rows = sorted(before.keys() | after.keys(), key=lambda op: (-after.get(op, 0), op))
    for op in rows[:OPS_SHOWN]:
        table.add_row(op, str(before.get(op, 0)), str(after.get(op, 0)))
    if rest := rows[OPS_SHOWN:]:
        table.add_row(f"{len(rest)} others", *(str(sum(ops.get(op, 0) for op in rest)) for ops in (before, after)))
    screen.print(table)
    if done.validated:
        validated(done.validated)


def inspect_command(
    artifact: Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)], as_json: AsJson = False
) -> None:
    """Show an ONNX file's inputs, outputs, axes, operators, size and provenance."""
    found = api.inspect(artifact)
    if as_json:
        print_json(found.to_json())
        return
    screen = console()
    for line in _inspection(found):
        screen.print(printable(line))


def _inspection(found: api.Inspected) -> Iterator[str]:
    graph, record = found.summary, found.record
    yield (
        f"{found.path}  {size(graph.bytes)}, opset {graph.opset}, {graph.nodes} nodes, {graph.parameters:,} parameters"
    )
    yield from tensor_lines(graph)
    yield "Operators: " + ", ".join(f"{op} {count}" for op, count in graph.ops.items())
    if record is None:
        yield "Provenance: none; samdec-export did not write this file."
        return
    axes = ", ".join(f"{dim.name} {dim.min}..{dim.opt}..{dim.max}" for dim in record.signature.dims)
    yield f"Axes (min..opt..max): {axes}"
    yield f"Arrangement: {record.arrangement}"
    for choice in record.choices:
        yield f"  {choice}"
    if found.shares:
        yield f"Matrix products: {shares(found.shares)}, at the usual sizes"
    yield from kept_lines(record.kept)
    source = record.checkpoint
    made_of = source.file or ("embedded weights" if source.sha256 else "none")
    made_of += f", sha256 {source.sha256}" if source.sha256 else ""
    yield f"Model: {record.model}, {record.precision}, graph {record.graph}, masks {record.masks}"
    yield f"Checkpoint: {made_of} ({source.layout})"
    yield f"Decoder weights: sha256 {source.weights_sha256}"
    yield "Made with: " + ", ".join(f"{tool} {version}" for tool, version in record.tools.items())


def models_command(as_json: AsJson = False) -> None:
    """List the models that can be exported."""
    specs = api.models()
    if as_json:
        print_json([spec.to_json() for spec in specs])
        return
    table = Table("model", "alias", "what it is", "channels", "grid", "needs a checkpoint")
    for spec in specs:
        sizes = spec.architecture
        table.add_row(
            spec.name,
            spec.alias or "",
            spec.title,
            str(sizes.embed_dim),
            f"{sizes.grid}x{sizes.grid}",
            "yes" if spec.needs_checkpoint else "no",
        )
    console().print(table)


def doctor_command(as_json: AsJson = False) -> None:
    """Show what is installed, which engines can run here, and what stands in the way; exit 6 on an error."""
    diagnosis = api.doctor()
    print_json(diagnosis.to_json()) if as_json else diagnosed(diagnosis)
    diagnosis.require()


def diagnosed(diagnosis: api.Diagnosis) -> None:
    """Print packages, engines and findings."""
    screen = console()
    screen.print(f"Python {diagnosis.python} on {diagnosis.platform}")
    for package, version in diagnosis.packages.items():
        screen.print(f"  {package:<18} {version or '-'}")
    screen.print("Engines:")
    for engine, can_run in diagnosis.engines.items():
        screen.print(f"  {engine:<18} {'can run here' if can_run else 'cannot run here'}")
    screen.print("Engine builders:")
    for builder, obstacle in diagnosis.builders.items():
        screen.print(f"  {builder:<18} {f'cannot build here: {obstacle}' if obstacle else 'can build here'}")
    for finding in diagnosis.findings:
        screen.print(f"{finding.level}: {finding.message} {finding.advice}")
    if not diagnosis.findings:
        screen.print("No problems found.")
