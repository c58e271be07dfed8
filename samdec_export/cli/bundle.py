"""The commands that make folders for model servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdec_export.api import ServingOptions
from samdec_export.cli.flags import AsJson, print_json, takes

if TYPE_CHECKING:
    from samdec_export.api import Bundled

__all__ = ["bundle_app"]

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
    from samdec_export import api

    done = api.bundle(files, options, out)
    print_json(done.to_json()) if as_json else bundled(done)


def bundled(done: Bundled) -> None:
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
