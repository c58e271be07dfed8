"""Goldens on stdout, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from samdec_export.cli.terminal import console, printable, size

if TYPE_CHECKING:
    from samdec_export.parity.record import Recorded

__all__ = ["shown"]


def shown(found: Recorded) -> None:
    """Where a golden is, what was recorded for which weights, and how far each case's answers are from float64."""
    screen, record = console(), found.golden.record
    artifact = record.artifact
    source = artifact.checkpoint
    table = Table("case", "inputs", "floors")
    for case in record.cases:
        floors = ", ".join(f"{name} {floor:.1e}" for name, floor in case.floors.items())
        table.add_row(printable(case.name), "stored" if case.stored else f"seed {record.seed}", floors)
    for line in (
        f"{found.path}  {size(found.path.stat().st_size)}, {len(record.cases)} cases of {record.reference}",
        f"Model: {artifact.model}, graph {artifact.graph}, masks {artifact.masks}; recorded for {record.file}",
        f"Checkpoint: {source.file or 'embedded weights'} ({source.layout})",
        f"Decoder weights: sha256 {source.weights_sha256}",
        "Made with: " + ", ".join(f"{tool} {version}" for tool, version in record.tools.items()),
    ):
        screen.print(printable(line))
    screen.print(table)
