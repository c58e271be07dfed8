"""An fp32 file becomes fp16 or bf16, and what that costs is measured in masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.feeds import FeedsCache, typed_feeds
from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.core.options import SweepName
from samdec_export.parity.cases import range_notes, select_cases
from samdec_export.parity.comparisons import Replay, Validated, check
from samdec_export.parity.options import SweepOptions
from samdec_export.precision.convert import ConvertedFile, convert_file, open_fp32
from samdec_export.precision.options import Conversion

__all__ = ["Converted", "convert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A converted file, and its validation if there was one."""

    file: ConvertedFile
    validated: Validated | None

    @property
    def artifact(self) -> Artifact:
        """Return the file and its record."""
        return self.file.artifact

    def to_json(self) -> dict[str, Any]:
        """Return everything, the record and the report among it."""
        return {**self.file.to_json(), "validation": self.validated.to_json() if self.validated else None}


def convert(
    file: FilePath,
    wanted: LowPrecision | Conversion,
    checkpoint: FilePath | None = None,
    *,
    out: FilePath | None = None,
    feeds: FilePath | None = None,
    sweep: SweepName = SweepOptions.sweep,
    validate: bool = True,
) -> Converted:
    """Convert an exported fp32 file to fp16 or bf16, and compare the result with eager fp32.

    Args:
        file: The fp32 file.
        wanted: `fp16` or `bf16`; a `Conversion` says more, such as what stays in fp32.
        checkpoint: What the file was exported from; None where the weights are embedded.
        out: The folder to write to; None for that of `file`.
        feeds: Recorded inputs to measure ranges and flips on, and to validate with, instead of a sweep's.
        sweep: How wide to measure and to validate.
        validate: False to convert without comparing, which needs no checkpoint. A failed validation is in the result,
            not raised.

    Raises:
        GraphError: The file is not fp32, carries no record, or too few of its products would be in the wanted type.
        CheckpointError, UsageError, DependencyError: As the stages say. Nothing is left in `out`.
    """
    path, weights, recorded = as_path(file), optional_path(checkpoint), optional_path(feeds)
    conversion = wanted if isinstance(wanted, Conversion) else Conversion(precision=wanted)
    source = open_fp32(path)
    cases = FeedsCache().keep(select_cases(source.record, feeds=recorded, sweep=sweep))
    with interrupts.deferred():
        from samdec_export.models.checkpoint import load_for

    loaded = load_for(source, weights) if validate else None
    done = convert_file(source, conversion, cases, optional_path(out) or path.parent)
    if loaded is None:
        return Converted(file=done, validated=None)
    signature = done.artifact.record.signature
    replay = Replay(file=done.artifact.path, checkpoint=weights, feeds=recorded, seed=SweepOptions.seed, sweep=sweep)
    notes = range_notes(source.record, cases) if recorded else ()
    validated = check(done.artifact, loaded, [typed_feeds(case, signature) for case in cases], replay, notes=notes)
    return Converted(file=done, validated=validated)
