"""The result of a bundle, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samdec_export.serving.bundle import Bundled

__all__ = ["bundled"]


def bundled(done: Bundled) -> None:
    """A line for each model and each version, and how to go on."""
    print(f"{done.path}  {len(done.models)} models for Triton Inference Server")
    for entry in done.models:
        model = entry.model
        axis = model.batch_axis
        batch = f"batches of up to {model.max_batch_size} {axis.name}" if axis else "no batching across requests"
        print(f"  {model.name}  {model.backend}, {batch}")
        for number, file in enumerate(entry.files, start=1):
            print(f"    {number}  {file.path}")
    print(f"How to start and ask it: {done.path / 'README.md'}")
