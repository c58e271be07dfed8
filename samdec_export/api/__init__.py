"""The stages from Python: what the commands do, with results as values instead of text.

    from samdec_export import api

    api.export("sam_b.pt", out="artifacts").artifact.path

Each function is one command and returns the frozen dataclass that the command prints; `to_json()` of it is what
`--json` gives. Expected failures are raised as subclasses of `SamdecError` (`samdec_export.core.errors`). A failed
validation is a result, not an exception: `require()` makes one of it. Nothing is printed, and progress is logged under
`samdec_export`. Importing this module imports neither torch nor onnx.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.core.dtypes import LowPrecision
from samdec_export.core.errors import SamdecError, UsageError, ValidationError
from samdec_export.core.options import DEFAULT_OPSET, Conversion, GraphOptions, Provider, SweepName

if TYPE_CHECKING:
    from samdec_export.backends.tensorrt.engine import EngineBuilt
    from samdec_export.bench.side_by_side import Benchmarked
    from samdec_export.export.to_onnx import Exported, Inspected
    from samdec_export.parity.comparisons import Validated
    from samdec_export.parity.record import Recorded
    from samdec_export.precision.convert import Converted

__all__ = [
    "BuildOptions",
    "Conversion",
    "GraphOptions",
    "SamdecError",
    "UsageError",
    "ValidationError",
    "bench",
    "build_engine",
    "convert",
    "export",
    "inspect",
    "record",
    "validate",
]

FilePath: TypeAlias = str | os.PathLike[str]


def export(
    checkpoint: FilePath | None = None,
    model: str | None = None,
    *,
    options: GraphOptions = GraphOptions(),  # noqa: B008  # frozen
    opset: int = DEFAULT_OPSET,
    out: FilePath = "artifacts",
    sweep: SweepName | None = "quick",
) -> Exported:
    """Export a checkpoint's decoder as simplified ONNX, and compare it with eager PyTorch.

    Args:
        checkpoint: A checkpoint file or Hugging Face folder; None for the embedded `sam_toy`.
        model: The model's name, for a checkpoint that does not tell.
        options: Which graph, with which axes and masks.
        opset: ONNX opset, 17 to 20.
        out: The folder to write to.
        sweep: How wide to validate; None not to.

    Raises:
        CheckpointError, GraphError, UsageError, DependencyError: Nothing is left in `out`.
    """
    from samdec_export.export import to_onnx as pipeline

    return pipeline.export(_path(checkpoint), model, options=options, opset=opset, out=_need(out), sweep=sweep)


def convert(
    file: FilePath,
    wanted: LowPrecision | Conversion,
    checkpoint: FilePath | None = None,
    *,
    out: FilePath | None = None,
    feeds: FilePath | None = None,
    sweep: SweepName | None = "quick",
) -> Converted:
    """Convert an exported fp32 file to fp16 or bf16, and compare the result with eager fp32.

    Args:
        file: The fp32 file.
        wanted: `fp16` or `bf16`; a `Conversion` says more, such as what stays in fp32.
        checkpoint: What the file was exported from; None where the weights are embedded.
        out: The folder to write to; None for that of `file`.
        feeds: Recorded inputs (.npz) to measure on, instead of a sweep's.
        sweep: How wide to validate; None not to, which needs no checkpoint.

    Raises:
        CheckpointError, GraphError, UsageError, DependencyError: Nothing is left in `out`.
    """
    from samdec_export.precision import convert as flow

    conversion = wanted if isinstance(wanted, Conversion) else Conversion(precision=wanted)
    return flow.convert(_need(file), conversion, _path(checkpoint), out=_path(out), feeds=_path(feeds), sweep=sweep)


def build_engine(
    file: FilePath,
    options: BuildOptions = BuildOptions(),  # noqa: B008  # frozen
    checkpoint: FilePath | None = None,
    *,
    precision: LowPrecision | None = None,
    out: FilePath | None = None,
) -> EngineBuilt:
    """Build a TensorRT or TensorRT-RTX engine of an exported or converted file, and check the precision that it got.

    Args:
        file: The ONNX file.
        options: Engine, GPU generations, profiles and settings.
        checkpoint: To validate a conversion with; None not to.
        precision: What the file is converted to first; None to take it as it is.
        out: The folder to write to; None for that of `file`.

    Raises:
        EngineError: TensorRT refuses the graph, or its precision is not what was asked for.
        CheckpointError, GraphError, UsageError, DependencyError, ValidationError: Nothing is left in `out`.
    """
    from samdec_export.backends.tensorrt import engine as engines

    return engines.build(_need(file), options, precision, _path(checkpoint), out=_path(out))


def validate(
    file: FilePath,
    checkpoint: FilePath | None = None,
    *,
    golden: FilePath | None = None,
    outputs: FilePath | None = None,
    feeds: FilePath | None = None,
    case: str | None = None,
    seed: int | None = None,
    sweep: SweepName | None = None,
    provider: Provider | None = None,
) -> Validated:
    """Compare a file with eager PyTorch, or with its answers in a golden, which needs no torch.

    Args:
        file: The exported or converted file.
        checkpoint: What it was exported from; None where the weights are embedded.
        golden: What `record` wrote, instead of a checkpoint.
        outputs: What `polygraphy run --save-outputs` wrote, to be judged instead of running `file`.
        feeds: Recorded inputs (.npz, or Polygraphy's .json) instead of a sweep.
        case: The only case to run, by name.
        seed: What the inputs follow from; None for 0, or the golden's.
        sweep: How wide to go; None for `full`, or the golden's.
        provider: Where ONNX Runtime runs it; None for the CPU.

    Raises:
        ValidationError: The golden is of another contract. `require()` of the result raises it where something differs.
        CheckpointError, GraphError, UsageError, DependencyError: As their messages say.
    """
    from samdec_export.parity import comparisons as gate

    return gate.validate(
        _need(file),
        _path(checkpoint),
        golden=_path(golden),
        outputs=_path(outputs),
        feeds=_path(feeds),
        case=case,
        seed=seed,
        sweep=sweep,
        provider=provider,
    )


def record(
    file: FilePath,
    checkpoint: FilePath | None = None,
    *,
    out: FilePath | None = None,
    feeds: FilePath | None = None,
    seed: int = 0,
    sweep: SweepName = "quick",
    keep_inputs: bool = False,
) -> Recorded:
    """Record eager PyTorch's answers in a golden, to validate where there is no torch and no checkpoint.

    Args:
        file: An exported file: the contract.
        checkpoint: What it was exported from; None where the weights are embedded.
        out: The file to write; None for `<file>.golden.npz` beside `file`.
        feeds: Recorded inputs (.npz, or Polygraphy's .json) instead of a sweep.
        seed: What a sweep's inputs follow from.
        sweep: How wide to go.
        keep_inputs: Store a sweep's inputs too.

    Raises:
        ValidationError: The weights are not those of `file`, or the answers are not finite.
        CheckpointError, GraphError, UsageError, DependencyError: Nothing is written.
    """
    from samdec_export.parity import record as golden

    return golden.record(
        _need(file),
        _path(checkpoint),
        out=_path(out),
        feeds=_path(feeds),
        seed=seed,
        sweep=sweep,
        keep_inputs=keep_inputs,
    )


def bench(
    files: Sequence[FilePath],
    checkpoint: FilePath | None = None,
    *,
    images: Sequence[int] = (1,),
    prompts: Sequence[int] = (1, 8, 64),
    points: Sequence[int] = (2, 10),
    threads: int = 2,
    repeats: int = 7,
) -> Benchmarked:
    """Time exported files side by side, each in a process of its own, in every combination of sizes.

    Args:
        files: What to time; `FILE@eager` and `FILE@compile` time the module that it was exported from.
        checkpoint: The weights, for those two.
        images: Images a run.
        prompts: Prompts an image.
        points: Points a prompt.
        threads: Threads that each may use.
        repeats: Rounds that are counted.

    Raises:
        SamdecError: A file is not of this project, or a candidate's process stopped.
    """
    from samdec_export.bench import side_by_side as flow
    from samdec_export.bench.measure import Workload

    entries = [flow.parse_entry(os.fspath(file), _path(checkpoint)) for file in files]
    workloads = Workload.grid([*images], [*prompts], [*points])
    return flow.bench(entries, workloads, threads=threads, repeats=repeats)


def inspect(file: FilePath) -> Inspected:
    """What an ONNX file holds, and how it was made if samdec-export made it.

    Raises:
        GraphError: It cannot be read, or its sidecar is of another file.
    """
    from samdec_export.export import to_onnx as pipeline

    return pipeline.inspect(_need(file))


def _need(path: FilePath) -> Path:
    if not os.fspath(path):
        raise UsageError("A path is empty.", "Name a file or folder.")
    return Path(path)


def _path(path: FilePath | None) -> Path | None:
    return None if path is None else _need(path)
