"""The commands on engines; `cli.py` adds them to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdec_export.backends.tensorrt.options import BuildOptions, parse_profile, parse_targets
from samdec_export.cli.flags import AsJson, Checkpoint, chosen_precision, print_json
from samdec_export.core.packages import EngineName

__all__ = ["engines_command", "trt_command"]


def trt_command(
    artifact: Annotated[
        Path | None, typer.Argument(help="Exported file.", show_default="the one in artifacts/")
    ] = None,
    ckpt: Checkpoint = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert to fp16 first, unless it is; see: convert.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convert to bf16 first, unless it is.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.", show_default="that of the artifact")
    ] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine.", show_default="what can build here")] = None,
    targets: Annotated[
        str | None, typer.Option(help="rtx: GPU generations, such as sm86,sm89.", show_default="this GPU's, or all")
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option("--profile", help="'batch=1:1:64 points=1:2:16': sizes to tune for.", show_default=False),
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="Most scratch memory, MB.", show_default=False)] = None,
    opt_level: Annotated[int | None, typer.Option(help="0 to 5: time spent on building.", show_default=False)] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="tensorrt: file of measured kernels.", show_default=False)
    ] = None,
    hardware_compat: Annotated[bool, typer.Option("--hardware-compat", help="tensorrt: any GPU since Ampere.")] = False,
    version_compat: Annotated[bool, typer.Option("--version-compat", help="Later versions can run it.")] = False,
    strip_weights: Annotated[bool, typer.Option("--strip-weights", help="Leave the weights out.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Weights can be changed later.")] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="Multiply fp32 matrices in TF32.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine, and check the precision that it got."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    wanted = BuildOptions(
        engine=engine,
        targets=parse_targets(targets) if targets is not None else (),
        profiles=tuple(parse_profile(text) for text in profiles or ()),
        workspace=workspace,
        opt_level=opt_level,
        timing_cache=timing_cache,
        hardware_compat=hardware_compat,
        version_compat=version_compat,
        strip_weights=strip_weights,
        refit=refit,
        tf32=tf32,
    )
    precision = chosen_precision(fp16, bf16) if fp16 or bf16 else None
    done = api.build_engine(artifact, wanted, ckpt, precision=precision, out=out)
    print_json(done.to_json()) if as_json else display.engine_built(done)


def engines_command(
    folder: Annotated[Path, typer.Argument(help="Folder of engines.")] = Path("artifacts"), as_json: AsJson = False
) -> None:
    """List the engines of a folder, and which of them this machine can run."""
    from samdec_export import api
    from samdec_export.cli import tables as display

    found = api.engines(folder)
    print_json([entry.to_json() for entry in found]) if as_json else display.engines(found)
