"""An ONNX file becomes an engine: found, converted where that is asked for, and built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from samdec_export.api._make import convert
from samdec_export.api._validate import validate
from samdec_export.backends.tensorrt.engine import EngineBuilt, build, plan_build
from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.errors import NoRecordError, UsageError
from samdec_export.core.files import FilePath, as_path, optional_path, staging
from samdec_export.core.log import log
from samdec_export.core.options import ExportOptions
from samdec_export.precision.options import Conversion

__all__ = ["build_engine"]


def build_engine(
    file: FilePath | None = None,
    options: BuildOptions = BuildOptions(),  # noqa: B008  # frozen
    checkpoint: FilePath | None = None,
    *,
    precision: LowPrecision | None = None,
    out: FilePath | None = None,
) -> EngineBuilt:
    """Build a TensorRT or TensorRT-RTX engine of an exported or converted file, and check the precision that it got.

    Args:
        file: The ONNX file; None for the one export in the folder that exports go to.
        options: Engine, GPU generations, profiles and settings.
        checkpoint: What it was exported from, to validate a conversion with; None not to.
        precision: What the file is converted to first, unless it is that already; None to take it as it is.
        out: The folder to write to; None for that of the ONNX file.

    Raises:
        UsageError: There is no one export, or an option does not go with the engine or the graph.
        EngineError: TensorRT would refuse or refuses the graph, or its precision is not what was asked for.
        DependencyError: No engine can build here.
        CheckpointError, GraphError, ValidationError: As the stages say. No engine is left in `out`; a conversion that
            failed its validation stays, and fails again.
    """
    from samdec_export.export.onnx_file import open_artifact

    source = open_artifact(_select_onnx(ExportOptions.out) if file is None else as_path(file))
    plan = plan_build(source, options, precision or source.record.precision)
    target = optional_path(out) or source.path.parent
    with staging(target):
        pass  # a folder that cannot be written to is known before the work, not after
    typed = _typed_for(source, precision, plan.wanted.targets, optional_path(checkpoint))
    return build(typed, plan, target)


def _select_onnx(folder: Path) -> Path:
    """Return the one export in a folder, or raise a UsageError; conversions of it count as the same."""
    found = [artifact for artifact in map(_own, sorted(folder.glob("*.onnx"))) if artifact]
    digests = {artifact.sha256 for artifact in found}
    exported = [artifact for artifact in found if artifact.record.parent not in digests]
    if len(exported) == 1:
        log.info("Building from %s.", exported[0].path)
        return exported[0].path
    if not exported:
        raise UsageError(f"There is no exported ONNX file in {folder}.", "Run samdec-export onnx, or name a file.")
    names = ", ".join(str(artifact.path) for artifact in exported)
    raise UsageError(f"There are {len(exported)} exports in {folder}: {names}.", "Name the one to build from.")


def _own(path: Path) -> Artifact | None:
    """Return an ONNX file of this project's, or None with a word about it."""
    from samdec_export.export.onnx_file import open_artifact

    try:
        return open_artifact(path)
    except NoRecordError:
        log.info("Passing over %s: samdec-export did not write it.", path)
        return None


def _typed_for(
    source: Artifact, precision: LowPrecision | None, targets: Sequence[str], checkpoint: Path | None
) -> Artifact:
    """Return the file in the wanted precision: itself, an earlier conversion of it, or one made beside it.

    An earlier conversion is taken only if the same was asked for. For Turing (sm75) that is one without fp32 products,
    which has a name of its own.
    """
    from samdec_export.backends.tensorrt.lint import TURING

    if precision in (None, source.record.precision):
        return source
    assert precision is not None
    if source.record.precision != "fp32":
        raise UsageError(
            f"{source.path} is {source.record.precision} already.",
            f"Leave out {{precision={precision}}}, or name the fp32 file.",
        )
    wanted = Conversion(precision=precision, all_matmuls=TURING in targets)
    if wanted.all_matmuls:
        log.info("For sm75 no matmul stays in fp32: docs/numerics.md says what that costs.")
    can_validate = checkpoint is not None or source.record.checkpoint.file is None
    earlier = _converted_earlier(source, wanted)
    typed = earlier or convert(source.path, wanted, validate=False).artifact
    if can_validate:
        validate(typed.path, checkpoint, sweep="quick").require()
    else:
        log.info("%s is taken without validation, which needs the checkpoint.", typed.path)
    return typed


def _converted_earlier(source: Artifact, wanted: Conversion) -> Artifact | None:
    """Return the file that the conversion would write, if it is there and of this source.

    One of other choices is a UsageError: it is neither to be taken for this, nor overwritten.
    """
    from samdec_export.export.onnx_file import open_artifact

    asked = wanted.to_json()
    record = replace(source.record, precision=wanted.precision, conversion=asked)
    path = source.path.with_name(record.file_name)
    if not path.exists() or (earlier := open_artifact(path)).record.parent != source.sha256:
        return None
    made = earlier.record.conversion
    if differences := "; ".join(
        f"{name} {made.get(name)}, not {asked[name]}" for name in asked if made.get(name) != asked[name]
    ):
        raise UsageError(
            f"{path} was converted with other choices: {differences}.",
            "Name that file to build from it as it is, or move it away to have it converted as usual.",
        )
    log.info("Using %s, converted earlier.", path)
    return earlier
