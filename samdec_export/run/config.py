"""What a run is asked for: the one place where its keys, their kinds and their usual values are written.

A config comes from outside, as YAML and flags, so every value is checked here; `config_file.py` reads it. Each key's
docstring is its description in the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from samdec_export.backends.tensorrt.options import RTX_TARGETS, BuildOptions
from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.errors import UsageError
from samdec_export.core.options import (
    DEFAULT_MARGIN,
    DEFAULT_OPSET,
    OPSETS,
    ArrangementName,
    Conversion,
    GraphName,
    GraphOptions,
    MasksMode,
    SweepName,
)
from samdec_export.core.packages import EngineName
from samdec_export.core.results import Tolerance
from samdec_export.core.signature import Dim
from samdec_export.models.registry import MODELS, find_model
from samdec_export.parity.tolerances import TOLERANCES

__all__ = ["THRESHOLDS", "EngineConfig", "Gate", "Latency", "RunConfig", "Thresholds"]


THRESHOLDS: Final = ("iou", "flipped", "pixels", "best_mask", "iou_predictions", "logits")
"""Each key of `gate.<precision>`: a field of `Tolerance`."""


def _ascending(sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    low, usual, high = sizes
    if not low <= usual <= high:
        raise ValueError("is not [min, usual, max] in ascending order.")
    return sizes


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({*values}) < len(values):
        raise ValueError("names something twice.")
    return values


def _known_model(name: str) -> str:
    try:
        return find_model(name).name
    except UsageError as error:
        raise ValueError(f"is not a model. {error.advice}") from error


Count: TypeAlias = Annotated[int, Field(ge=1)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AxisRange: TypeAlias = Annotated[tuple[Count, Count, Count], AfterValidator(_ascending)]
Opset: TypeAlias = Annotated[int, Field(ge=OPSETS[0], le=OPSETS[-1])]
Target: TypeAlias = Literal["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]
Model: TypeAlias = Annotated[str, AfterValidator(_known_model), WithJsonSchema({"type": "string", "enum": [*MODELS]})]


class Section(BaseModel):
    """Part of a config: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values: Any) -> Any:
        """A section whose keys are all commented out is None to YAML."""
        return {} if values is None else values


class ConvertConfig(Section):
    """What is asked of a conversion to fp16 or bf16."""

    io: Precision = "fp32"
    """Precision of the graph's inputs and outputs."""
    keep_fp32: tuple[str, ...] = ()
    """Patterns of nodes or operators that stay in fp32, such as Softmax."""
    max_flips: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of mask pixels that may flip; more nodes are kept in fp32 until it is met."""
    margin: Annotated[float, Field(ge=1, allow_inf_nan=False)] = DEFAULT_MARGIN
    """How many times below the largest number a measured tensor must stay, or its node is kept in fp32."""
    protect: bool = True
    """Keep in fp32 what the rules and the measured ranges call for; without it only keep_fp32 is kept."""
    all_products: bool = False
    """Keep no matrix product in fp32, as engines for sm75 need."""

    def options(self, precision: LowPrecision) -> Conversion:
        """The same for the stage."""
        return Conversion(
            precision=precision,
            io=self.io,
            keep=self.keep_fp32,
            max_flips=self.max_flips,
            margin=self.margin,
            protect=self.protect,
            all_products=self.all_products,
        )


class EngineConfig(Section):
    """Which engines are built, and how."""

    build: Literal["auto"] | Annotated[tuple[EngineName, ...], AfterValidator(_each_once)] = "auto"
    """auto: what is installed and can build here, TensorRT before TensorRT-RTX. A list: these, and an error where one
    cannot; a process judges engines of one kind only. []: none."""
    precisions: Annotated[tuple[Precision, ...], AfterValidator(_each_once)] | None = None
    """Precisions to build in, among those of the run; all of them where this is left out."""
    profiles: tuple[dict[str, AxisRange], ...] = ()
    """Sizes to tune for: for each profile, axes with [min, usual, max]."""
    targets: Annotated[tuple[Target, ...], AfterValidator(_each_once)] = ()
    """TensorRT-RTX: GPU generations; this GPU's, or the usual four, where this is left out."""
    workspace: Count | None = None
    """Most scratch memory, in MB."""
    opt_level: Annotated[int, Field(ge=0, le=5)] | None = None
    """0 (a quick build) to 5 (a quick engine)."""
    timing_cache: Path | None = None
    """TensorRT: file of measured kernels, read if it is there and written."""
    hardware_compat: bool = False
    """TensorRT: the engine runs on every GPU from Ampere on."""
    version_compat: bool = False
    """Later versions of the engine can run it."""
    strip_weights: bool = False
    """Leave the weights out."""
    refit: bool = False
    """Weights can be changed later."""
    tf32: bool = False
    """Multiply fp32 matrices with 10 bits of mantissa."""

    def options(self, engine: EngineName) -> BuildOptions:
        """The same for the stage; a key that belongs to one engine reaches that one alone."""
        return BuildOptions(
            engine=engine,
            targets=tuple(target for target in RTX_TARGETS if target in self.targets) if engine == "rtx" else (),
            profiles=tuple(_dims(profile) for profile in self.profiles),
            workspace=self.workspace,
            opt_level=self.opt_level,
            timing_cache=self.timing_cache if engine == "tensorrt" else None,
            hardware_compat=self.hardware_compat and engine == "tensorrt",
            version_compat=self.version_compat,
            strip_weights=self.strip_weights,
            refit=self.refit,
            tf32=self.tf32,
        )


class ParityConfig(Section):
    """What a file is compared with eager PyTorch on."""

    sweep: SweepName = "quick"
    """How wide: quick for every change, full before a deployment."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What the inputs follow from."""
    feeds: Path | None = None
    """Recorded inputs (.npz) instead of a sweep; ranges are measured on them too."""


class BenchConfig(Section):
    """What is timed: every combination of sizes; files in ONNX Runtime on the CPU, engines on the GPU here."""

    enabled: bool = True
    """Time the files."""
    images: tuple[Count, ...] = Field(default=(1,), min_length=1)
    """Images per run."""
    prompts: tuple[Count, ...] = Field(default=(1, 8), min_length=1)
    """Prompts per image."""
    points: tuple[Count, ...] = Field(default=(2,), min_length=1)
    """Points per prompt."""
    threads: Count = 2
    """Threads of each candidate."""
    repeats: Count = 7
    """Rounds to time."""


class Thresholds(Section):
    """What one precision may differ by; a key that is left out has the precision's own value (docs/run.md)."""

    iou: Share | None = None
    """Smallest IoU of any mask with eager fp32."""
    flipped: Share | None = None
    """Largest share of mask pixels of a case that are on the other side."""
    pixels: Annotated[int, Field(ge=0)] | None = None
    """A mask in which no more pixels than these flip is not judged by iou and flipped."""
    best_mask: Share | None = None
    """Smallest share of prompts whose best-scored mask is the same."""
    iou_predictions: Positive | None = None
    """Largest error of a predicted IoU."""
    logits: Positive | None = None
    """Largest error of a mask logit, as a share of the logits' span."""


class Latency(Section):
    """How slow a file may be against a recorded benchmark."""

    baseline: Path
    """A bench.json that an earlier run wrote, or what samdec-export bench --json printed, on the same machine."""
    ratio: Positive = 1.1
    """Largest median time, as a multiple of the baseline's."""


class Gate(Section):
    """The policy: what must hold for exit code 0."""

    fp32: Thresholds = Thresholds()
    """Limits of the fp32 file."""
    fp16: Thresholds = Thresholds()
    """Limits of the fp16 file."""
    bf16: Thresholds = Thresholds()
    """Limits of the bf16 file."""
    latency: Latency | None = None
    """Limit of the time; none where this is left out."""
    require_engines: bool = False
    """An engine that was built and could not be run here fails the gate."""

    def tolerance(self, precision: Precision) -> Tolerance:
        """The limits of a precision: its own, with what is set here in their place."""
        own: Thresholds = getattr(self, precision)
        given = {key: getattr(own, key) for key in THRESHOLDS if getattr(own, key) is not None}
        return replace(TOLERANCES[precision], **given)

    def limits(self, precision: Precision) -> dict[str, float]:
        """The same by the keys of this section."""
        tolerance = self.tolerance(precision)
        return {key: getattr(tolerance, key) for key in THRESHOLDS}


class RunConfig(Section):
    """Everything that a run is asked for."""

    model: Model | None = None
    """The model; where it is left out, the checkpoint tells."""
    checkpoint: Path | None = None
    """A .pt, .pth or .safetensors file, or a Hugging Face folder; none for a model with embedded weights."""
    out: Path = Path("artifacts")
    """Folder to write to."""
    graph: GraphName = "decoder"
    """Graph contract."""
    masks: MasksMode | None = None
    """Masks to return; multi, and all for the graph meta, where this is left out."""
    mask_input: bool = False
    """prompts: each prompt may bring a mask."""
    dynamic_grid: bool = False
    """Height and width of the image embedding are dynamic."""
    arrangement: ArrangementName = "fused"
    """fused: less work, same function. reference: as its authors wrote it."""
    ranges: dict[str, AxisRange] = Field(default_factory=dict)
    """Axes with [min, usual, max]: sizes to arrange, validate and build for."""
    opset: Opset = DEFAULT_OPSET
    """ONNX opset."""
    precisions: Annotated[tuple[Precision, ...], AfterValidator(_each_once)] = ("fp32", "fp16")
    """Files to deliver. An fp32 file is always made and proved: the others are converted from it."""
    convert: ConvertConfig = ConvertConfig()
    """Conversion to fp16 and bf16."""
    engines: EngineConfig = EngineConfig()
    """Engines to build."""
    parity: ParityConfig = ParityConfig()
    """Comparison with eager PyTorch."""
    bench: BenchConfig = BenchConfig()
    """Benchmark."""
    gate: Gate = Gate()
    """What must hold."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        """Whatever two keys together make impossible; the stages' own objects know most of it."""
        try:
            _ = self.graph_options
            _ = [self.convert.options(precision) for precision in self.low_precisions]
        except UsageError as error:
            raise ValueError(str(error)) from error
        if not self.precisions:
            raise ValueError("precisions is empty: there would be nothing to deliver.")
        if stray := {*(self.engines.precisions or ())} - {*self.precisions}:
            raise ValueError(f"engines.precisions has {', '.join(sorted(stray))}, which precisions has not.")
        built = {*(self.engines.precisions or self.precisions)}
        if "sm75" in self.engines.targets and not (built == {"fp16"} and self.convert.all_products):
            raise ValueError(
                "engines.targets has sm75, which needs engines.precisions [fp16] and convert.all_products."
            )
        if self.gate.latency and not self.bench.enabled:
            raise ValueError("gate.latency needs the benchmark, and bench.enabled is false.")
        return self

    @property
    def graph_options(self) -> GraphOptions:
        """What is asked of the graph."""
        return GraphOptions(
            graph=self.graph,
            masks=self.masks,
            mask_input=self.mask_input,
            dynamic_grid=self.dynamic_grid,
            arrangement=self.arrangement,
            ranges=_dims(self.ranges),
        )

    @property
    def low_precisions(self) -> tuple[LowPrecision, ...]:
        """Precisions that are converted to."""
        return tuple(precision for precision in self.precisions if precision != "fp32")

    @property
    def engine_precisions(self) -> tuple[Precision, ...]:
        """Precisions that engines are built in."""
        return self.precisions if self.engines.precisions is None else self.engines.precisions


def _dims(ranges: Mapping[str, tuple[int, int, int]]) -> tuple[Dim, ...]:
    return tuple(Dim(name=name, min=low, opt=usual, max=high) for name, (low, usual, high) in ranges.items())
