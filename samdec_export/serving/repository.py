"""A folder as Triton reads it: a configuration for each model, a numbered folder for each version of it.

    README.md, client.py
    sam_b.prompts/config.pbtxt
    sam_b.prompts/1/model.onnx, model.onnx.json
    sam_b.prompts/warmup/...        only where a warm-up request needs more than zeros

Triton looks at folders and, within a model, at those with a number: what else is there is for people.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from samdec_export.core.errors import GraphError
from samdec_export.core.files import sha256
from samdec_export.serving.model import FILE_NAMES, ServedModel
from samdec_export.serving.model_config import config_text, warm_up_files
from samdec_export.serving.options import ServingOptions

__all__ = ["ServedFile", "write_client", "write_model", "write_readme"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """A file of a model: where it is, the SHA-256 of the bytes that were looked at, and its record."""

    path: Path
    sha256: str
    sidecar: Mapping[str, Any]


def write_model(folder: Path, model: ServedModel, versions: Sequence[ServedFile], options: ServingOptions) -> None:
    """Write a model into `folder`, which is made: versions are numbered from 1 in the order given.

    A file and its record stay what they are, so each version can be validated or inspected where it lies.

    Raises:
        GraphError: A file was changed while it was copied.
        DependencyError: tritonclient is not installed.
        OSError: A file cannot be read or written.
    """
    folder.mkdir()
    (folder / "config.pbtxt").write_text(config_text(model, options), encoding="utf-8")
    for number, version in enumerate(versions, start=1):
        target = folder / str(number) / FILE_NAMES[model.backend]
        target.parent.mkdir()
        shutil.copyfile(version.path, target)
        if sha256(target) != version.sha256:
            raise GraphError(f"{version.path} was changed while it was copied.", "Bundle it again.")
        sidecar = target.with_name(f"{target.name}.json")
        sidecar.write_text(json.dumps(dict(version.sidecar), indent=2) + "\n", encoding="utf-8")
    for name, content in warm_up_files(model).items():
        (folder / "warmup").mkdir(exist_ok=True)
        (folder / "warmup" / name).write_bytes(content)


def write_readme(folder: Path, models: Sequence[ServedModel], flags: Sequence[str], notes: Sequence[str]) -> None:
    """Write how to start the server and ask it.

    Args:
        folder: The repository.
        models: What it holds.
        flags: What the server must be started with.
        notes: Sentences on what the files need, one a line.
    """
    rows = [
        f"| `{model.name}` | {model.backend} | {model.max_batch_size or 'none'} | "
        + ", ".join(f"`{spec.name}`" for spec in model.signature.inputs)
        + " |"
        for model in models
    ]
    text = Template(_packaged("templates/README.md")).substitute(
        models="\n".join(rows),
        first=models[0].name,
        flags="".join(f" \\\n        {flag}" for flag in flags),
        notes="".join(f"- {note}\n" for note in notes),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_client(folder: Path) -> None:
    """Write the example client, which finds the records beside it."""
    (folder / "client.py").write_text(_packaged("client.py"), encoding="utf-8")


def _packaged(name: str) -> str:
    return resources.files("samdec_export.serving").joinpath(name).read_text(encoding="utf-8")
