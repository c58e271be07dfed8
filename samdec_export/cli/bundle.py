"""The commands that make folders for model servers; `cli.py` adds them to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdec_export.cli.flags import AsJson, print_json
from samdec_export.serving.options import ServedKind, ServedVersions, ServingOptions

__all__ = ["bundle_app"]

bundle_app = typer.Typer(no_args_is_help=True, help="Make a folder that a model server reads.")


@bundle_app.callback()
def bundle() -> None:
    """Make a folder that a model server reads."""


@bundle_app.command("triton")
def triton_command(
    files: Annotated[
        list[Path], typer.Argument(help="Exported .onnx files, and .engine files of TensorRT.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("models"),
    name: Annotated[
        str | None, typer.Option(help="The model's name, each file a version of it.", show_default="by the records")
    ] = None,
    kind: Annotated[ServedKind, typer.Option(help="Where ONNX files run.")] = "auto",
    instances: Annotated[int, typer.Option(help="Copies that run at the same time.")] = 1,
    queue_delay: Annotated[int, typer.Option(help="Microseconds a request waits for others to share a batch.")] = 0,
    versions: Annotated[ServedVersions, typer.Option(help="Versions of a model that are loaded.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server, with a client that checks the answers."""
    from samdec_export import api
    from samdec_export.cli import display_bundle

    wanted = ServingOptions(name=name, kind=kind, instances=instances, queue_delay=queue_delay, versions=versions)
    done = api.bundle(files, wanted, out)
    print_json(done.to_json()) if as_json else display_bundle.bundled(done)
