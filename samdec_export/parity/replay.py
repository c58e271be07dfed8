"""What a validation was of, so that it can be run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samdec_export.core.options import Provider, SweepName
from samdec_export.core.spelling import command_line

__all__ = ["Replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A file, what it was compared with, and on which inputs.

    Args:
        file: What was judged.
        checkpoint: What eager PyTorch read.
        outputs: What engines answered elsewhere.
        golden: Inputs and reference in one.
        feeds: Recorded inputs.
        seed: Of a sweep.
        sweep: How wide it was.
        provider: Where ONNX Runtime ran.
        case: The one case to run again.
    """

    file: Path
    checkpoint: Path | None = None
    outputs: Path | None = None
    golden: Path | None = None
    feeds: Path | None = None
    seed: int
    sweep: SweepName
    provider: Provider | None = None
    case: str | None = None

    @property
    def command(self) -> str:
        """Return the command that runs it again; a golden brings its inputs along, and so do recorded ones."""
        swept = self.golden is None and self.feeds is None
        return command_line(
            "validate",
            self.file,
            checkpoint=self.checkpoint,
            outputs=self.outputs,
            golden=self.golden,
            feeds=self.feeds if self.golden is None else None,
            seed=self.seed if swept else None,
            sweep=self.sweep if swept else None,
            provider=self.provider,
            case=self.case,
        )
