"""The commands of a run; `cli.py` adds them to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samdec_export.cli.flags import AsJson, Checkpoint, print_json
from samdec_export.core.options import GraphName, SweepName

__all__ = ["config_app", "run_command"]

config_app = typer.Typer(help="The config of a run: its keys, and what a file of them comes to.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Argument(help="YAML file.", show_default="the usual values")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE over the file, such as gate.fp16.iou=0.95.", show_default=False),
]


def run_command(
    config: ConfigFile = None,
    ckpt: Checkpoint = None,
    model: Annotated[str | None, typer.Option(help="Model; see: models.", show_default=False)] = None,
    graph: Annotated[GraphName | None, typer.Option(help="Graph contract.", show_default=False)] = None,
    precisions: Annotated[str | None, typer.Option(help="Such as fp32,fp16.", show_default=False)] = None,
    engines: Annotated[str | None, typer.Option(help="rtx, tensorrt, both, or none.", show_default="auto")] = None,
    targets: Annotated[str | None, typer.Option(help="rtx: such as sm86,sm89.", show_default=False)] = None,
    sweep: Annotated[SweepName | None, typer.Option(help="How wide to compare.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default=False)] = None,
    settings: Settings = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read the checkpoint again, though its size and time are as before.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the config's JSON Schema and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make, prove and report everything that a config asks for; what did not change is not made again."""
    if schema:
        schema_command()
        return
    from samdec_export.cli import display_run
    from samdec_export.run import config_file
    from samdec_export.run.flow import run

    flags: dict[str, Any] = {
        "checkpoint": ckpt,
        "model": model,
        "graph": graph,
        "precisions": precisions and _names(precisions),
        "engines.build": engines and _names(engines),
        "engines.targets": targets and _names(targets),
        "parity.sweep": sweep,
        "out": out,
    }
    given = [(key, value) for key, value in flags.items() if value is not None]
    given += [config_file.parse_setting(text) for text in settings or ()]
    done = run(config_file.load_config(config, given), config_file.command_for(config, given), rehash=rehash)
    print_json(done.document.to_json()) if as_json else display_run.ran(done)
    done.require()


def _names(text: str) -> list[str] | str:
    """A list such as `fp32,fp16`; `none` is an empty one, `both` every engine."""
    match text.strip():
        case "auto":
            return "auto"
        case "none":
            return []
        case "both":
            return ["tensorrt", "rtx"]
        case names:
            return [name.strip() for name in names.split(",")]


@config_app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a config, for editors."""
    from samdec_export.run.config_file import schema_text

    print(schema_text(), end="")


@config_app.command("show")
def show_command(config: ConfigFile = None, settings: Settings = None) -> None:
    """Print a config in full, with what it leaves out, as YAML that reads back."""
    from samdec_export.run import config_file

    given = [config_file.parse_setting(text) for text in settings or ()]
    print(config_file.as_yaml(config_file.load_config(config, given)), end="")
