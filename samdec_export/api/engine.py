"""The file that an engine is built from, in the wanted precision: given, converted earlier, or converted now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from samdec_export.backends.candidates import open_artifact
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.errors import EngineError, UsageError
from samdec_export.core.log import log
from samdec_export.core.options import Conversion
from samdec_export.parity.comparisons import validate
from samdec_export.precision.convert import convert

__all__ = ["check_turing", "typed_for"]

TURING = "sm75"


def typed_for(
    source: Artifact, precision: LowPrecision | None, targets: Sequence[str], checkpoint: Path | None
) -> Artifact:
    """The file in the wanted precision: itself, an earlier conversion of it, or one made beside it.

    An earlier conversion is taken only if the same was asked for. For Turing (sm75) that is one without fp32 products,
    which has a name of its own.

    Args:
        source: What to build from.
        precision: What it is converted to, unless it is that already; None to take it as it is.
        targets: GPU generations that the engine is for.
        checkpoint: What it was exported from, to validate a conversion with; None not to.

    Raises:
        UsageError: The file is in another low precision, or the earlier conversion is of other choices.
        GraphError, CheckpointError, ValidationError: As `convert` says.
    """
    if precision in (None, source.record.precision):
        return source
    assert precision is not None
    if source.record.precision != "fp32":
        raise UsageError(
            f"{source.path} is {source.record.precision} already.", f"Leave out --{precision}, or name the fp32 file."
        )
    wanted = Conversion(precision=precision, all_products=TURING in targets)
    if wanted.all_products:
        log.info("For sm75 no product stays in fp32: docs/numerics.md says what that costs.")
    can_validate = checkpoint is not None or source.record.checkpoint.file is None
    earlier = _converted_earlier(source, wanted)
    typed = earlier or convert(source.path, wanted, sweep=None).artifact
    if can_validate:
        validate(typed.path, checkpoint, sweep="quick").require()
    else:
        log.info("%s is taken without validation; --ckpt validates it.", typed.path)
    return typed


def check_turing(typed: Artifact, targets: Sequence[str]) -> None:
    """Do nothing unless an engine for sm75 would have to multiply matrices in fp32.

    Raises:
        EngineError: It would; the message names the nodes and why they are in fp32.
    """
    from samdec_export.backends.tensorrt.lint import fp32_products

    if TURING in targets and (kept := fp32_products(typed.path)):
        reasons = "; ".join(f"{node} ({typed.record.kept.get(node, 'not converted')})" for node in kept)
        raise EngineError(
            f"{typed.path} multiplies matrices in fp32, which TensorRT-RTX does not do on sm75: {reasons}.",
            "Name the fp32 file and --fp16, which converts for sm75 (convert --all-products), or leave sm75 out of "
            "--targets.",
        )


def _converted_earlier(source: Artifact, wanted: Conversion) -> Artifact | None:
    """The file that the conversion would write, if it is there and of this source.

    Raises:
        UsageError: Something else was asked for when it was made: neither to be taken for this, nor overwritten.
    """
    asked = wanted.to_json()
    record = replace(source.record, precision=wanted.precision, conversion=asked)
    path = source.path.with_name(record.file_name)
    if not path.exists() or (earlier := open_artifact(path)).record.parent != source.sha256:
        return None
    if differences := _differences(earlier.record.conversion, asked):
        raise UsageError(
            f"{path} was converted with other choices: {differences}.",
            "Name that file to build from it as it is, or move it away to have it converted as usual.",
        )
    log.info("Using %s, converted earlier.", path)
    return earlier


def _differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Such as `margin 8.0, not 4.0`."""
    return "; ".join(f"{name} {made.get(name)}, not {asked[name]}" for name in asked if made.get(name) != asked[name])
