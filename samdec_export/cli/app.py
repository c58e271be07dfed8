"""The command line: parse, call the pipeline, print. Results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from samdec_export import __version__
from samdec_export.cli.bundle import bundle_app
from samdec_export.cli.engines import engines_command, trt_command
from samdec_export.cli.entry import run
from samdec_export.cli.flags import AsJson, Checkpoint, chosen_precision, parse_counts, print_json
from samdec_export.cli.golden import golden_command, record_command
from samdec_export.cli.report import report_command
from samdec_export.cli.run import config_app, run_command
from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.files import check_target, write_text
from samdec_export.core.log import log, show_progress
from samdec_export.core.options import (
    DEFAULT_MARGIN,
    DEFAULT_OPSET,
    OPSETS,
    ArrangementName,
    Conversion,
    GraphName,
    GraphOptions,
    MasksMode,
    Provider,
    SweepName,
    parse_range,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="samdec-export",
    help="Take the mask decoder of Segment Anything models from a checkpoint to a deployed engine, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NoValidate = Annotated[bool, typer.Option("--no-validate", help="Do not compare with eager PyTorch.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="What the inputs follow from.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"samdec-export {__version__}")
        raise typer.Exit


@app.callback()
def start(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, errors only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    if not quiet:
        show_progress()


@app.command("onnx")
def onnx_command(
    ckpt: Checkpoint = None,
    model: Annotated[
        str | None, typer.Option(help="Model, where the checkpoint does not tell; see: models.", show_default=False)
    ] = None,
    graph: Annotated[GraphName, typer.Option(help="Graph contract.")] = "decoder",
    masks: Annotated[MasksMode | None, typer.Option(help="Masks to return.", show_default="multi; meta: all")] = None,
    mask_input: Annotated[bool, typer.Option("--mask-input", help="prompts: each prompt may bring a mask.")] = False,
    dynamic_grid: Annotated[bool, typer.Option("--dynamic-grid", help="Dynamic height and width.")] = False,
    arrangement: Annotated[
        ArrangementName, typer.Option(help="fused: less work, same function. reference: as its authors wrote it.")
    ] = "fused",
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", help="AXIS=MIN:OPT:MAX: sizes to arrange and validate for.", show_default=False),
    ] = None,
    opset: Annotated[int, typer.Option(min=OPSETS[0], max=OPSETS[-1], help="ONNX opset.")] = DEFAULT_OPSET,
    out: Out = Path("artifacts"),
    sweep: Annotated[SweepName, typer.Option(help="How wide to validate.")] = "quick",
    no_validate: NoValidate = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert what was exported to fp16; see: convert.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convert it to bf16.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint's decoder as simplified ONNX, and validate it against eager PyTorch."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    if ckpt is None and model is None:
        log.info("No --ckpt: exporting the embedded sam_toy, which was trained on drawn shapes.")
    options = GraphOptions(
        graph=graph,
        masks=masks,
        mask_input=mask_input,
        dynamic_grid=dynamic_grid,
        arrangement=arrangement,
        ranges=tuple(parse_range(text) for text in ranges or ()),
    )
    wanted = Conversion(precision=chosen_precision(fp16, bf16)) if fp16 or bf16 else None
    done = api.export(ckpt, model, options=options, opset=opset, out=out, sweep=sweep, validate=not no_validate)
    failed = done.validated is not None and not done.validated.result.passed
    if not as_json:
        display.exported(done)
    elif failed or wanted is None:
        print_json(done.to_json())
    if done.validated:
        done.validated.require()
    if wanted is None:
        return
    typed = api.convert(done.artifact.path, wanted, ckpt, sweep=sweep, validate=not no_validate)
    print_json({**done.to_json(), "converted": typed.to_json()}) if as_json else display.converted(typed)
    if typed.validated:
        typed.validated.require()


@app.command("convert")
def convert_command(
    artifact: Annotated[Path, typer.Argument(help="Exported fp32 file.", show_default=False)],
    ckpt: Checkpoint = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="To IEEE half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="To bfloat16.")] = False,
    io: Annotated[Precision, typer.Option(help="Precision of inputs and outputs.")] = "fp32",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep-fp32", help="Nodes or operators to keep in fp32, such as Softmax.", show_default=False),
    ] = None,
    max_flips: Annotated[
        float | None, typer.Option(help="Share of mask pixels that may flip; else keep more.", show_default=False)
    ] = None,
    margin: Annotated[float, typer.Option(help="How far below the largest number tensors must stay.")] = DEFAULT_MARGIN,
    no_protect: Annotated[
        bool, typer.Option("--no-protect", help="Keep nothing in fp32 but what --keep-fp32 names.")
    ] = False,
    all_products: Annotated[
        bool, typer.Option("--all-products", help="Keep no matrix product in fp32: sm75 takes none.")
    ] = False,
    feeds: Annotated[
        Path | None, typer.Option(help="Recorded inputs (.npz) instead of a sweep.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.", show_default="that of the artifact")
    ] = None,
    sweep: Annotated[SweepName, typer.Option(help="How wide to measure and to validate.")] = "quick",
    no_validate: NoValidate = False,
    as_json: AsJson = False,
) -> None:
    """Convert an exported file to fp16 or bf16, and measure in masks what that costs."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    wanted = Conversion(
        precision=chosen_precision(fp16, bf16),
        io=io,
        keep=tuple(keep or ()),
        max_flips=max_flips,
        margin=margin,
        protect=not no_protect,
        all_products=all_products,
    )
    done = api.convert(artifact, wanted, ckpt, out=out, feeds=feeds, sweep=sweep, validate=not no_validate)
    print_json(done.to_json()) if as_json else display.converted(done)
    if done.validated:
        done.validated.require()


app.command("run")(run_command)
app.add_typer(config_app, name="config")
app.command("trt")(trt_command)
app.command("engines")(engines_command)
app.command("record")(record_command)
app.command("golden")(golden_command)
app.command("report")(report_command)
app.add_typer(bundle_app, name="bundle")


@app.command()
def validate(
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
    feeds: Annotated[
        Path | None,
        typer.Option(help="Recorded inputs (.npz, or Polygraphy's .json) instead of a sweep.", show_default=False),
    ] = None,
    case: Annotated[str | None, typer.Option(help="Run only this case.", show_default=False)] = None,
    sweep: Annotated[SweepName | None, typer.Option(help="How wide to validate.", show_default="full")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="What the inputs follow from.", show_default="0")] = None,
    provider: Annotated[Provider | None, typer.Option(help="Where ONNX Runtime runs it.", show_default="cpu")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file (- for stdout).", show_default=False)
    ] = None,
) -> None:
    """Compare an exported file or an engine with eager PyTorch; exit 7 where they differ."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    if json_file and json_file != Path("-"):
        check_target(json_file, (artifact, Path(f"{artifact}.json"), ckpt, golden, outputs, feeds))
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
    if json_file == Path("-"):
        print_json(done.to_json())
    else:
        display.validated(done)
    if json_file and json_file != Path("-"):
        write_text(json_file, json.dumps(done.to_json(), indent=2) + "\n")
    done.require()


@app.command()
def bench(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            help="Exported files and engines; FILE.onnx@ort-cuda runs on the GPU, @eager and @compile time its module.",
            show_default=False,
        ),
    ],
    ckpt: Checkpoint = None,
    prompts: Annotated[str, typer.Option(help="Prompts per image.")] = "1,8,64",
    points: Annotated[str, typer.Option(help="Points per prompt.")] = "2,10",
    images: Annotated[str, typer.Option(help="Images per run.")] = "1",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each candidate.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds to time.")] = 7,
    plot: Annotated[Path | None, typer.Option(help="Draw cost against prompts (.png).", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Time files side by side: one process each, interleaved, beside the speed of a plain matrix product."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    done = api.bench(
        artifacts,
        ckpt,
        images=parse_counts("images", images),
        prompts=parse_counts("prompts", prompts),
        points=parse_counts("points", points),
        threads=threads,
        repeats=repeats,
        plot=plot,
    )
    print_json(done.to_json()) if as_json else display.benchmarked(done)


@app.command()
def ranges(
    artifact: Annotated[Path, typer.Argument(help="Exported fp32 file.", show_default=False)],
    precision: Annotated[LowPrecision, typer.Option("--for", help="The precision to judge for.")] = "fp16",
    feeds: Annotated[
        Path | None, typer.Option(help="Recorded inputs (.npz) instead of a sweep.", show_default=False)
    ] = None,
    case: Annotated[str | None, typer.Option(help="Run only this case.", show_default=False)] = None,
    sweep: Annotated[SweepName, typer.Option(help="How wide to run.")] = "quick",
    seed: Seed = 0,
    top: Annotated[int, typer.Option(min=1, help="Tensors to show, the worst first.")] = 12,
    plot: Annotated[
        Path | None, typer.Option(help="Draw magnitudes in graph order (.png, .svg or .pdf).", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how large every float tensor of a graph gets, and judge what a 16-bit precision would not hold."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    done = api.ranges(artifact, precision, feeds=feeds, case=case, seed=seed, sweep=sweep, plot=plot)
    print_json(done.to_json()) if as_json else display.audited(done, top)


@app.command()
def inspect(
    artifact: Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)], as_json: AsJson = False
) -> None:
    """Show an ONNX file's inputs, outputs, axes, operators, size and provenance."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    found = api.inspect(artifact)
    print_json(found.to_json()) if as_json else display.inspected(found)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that can be exported."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    specs = api.models()
    print_json([spec.to_json() for spec in specs]) if as_json else display.models(specs)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, which engines can run here, and what stands in the way; exit 6 on an error."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    diagnosis = api.doctor()
    print_json(diagnosis.to_json()) if as_json else display.diagnosed(diagnosis)
    diagnosis.require()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: every expected failure is one line on stderr and its type's exit code."""
    run(app, arguments)
