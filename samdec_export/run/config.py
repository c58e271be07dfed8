"""What a run is asked for: the stages' own choices as keys, and the keys that only a run has.

A section takes the choices of a stage from where they are declared: type, default, bounds and help. A config comes from
outside, as YAML and flags, so every value is checked here; `config_file.py` reads it. The docstring of a run's own key
is its description in the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, GetCoreSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema, core_schema

from samdec_export.backends.tensorrt.options import (
    OF_ONE_ENGINE,
    RTX_TARGETS,
    BuildOptions,
    EngineOptions,
    Target,
)
from samdec_export.bench.options import BenchOptions
from samdec_export.core.choices import Options, choices_of, options_of
from samdec_export.core.dtypes import LowPrecision, Precision
from samdec_export.core.errors import UsageError
from samdec_export.core.options import ExportOptions, GraphOptions
from samdec_export.core.packages import EngineName
from samdec_export.core.results import Tolerance
from samdec_export.core.signature import Dim
from samdec_export.models.registry import MODELS, find_model
from samdec_export.parity.options import SweepOptions
from samdec_export.parity.tolerances import TOLERANCES
from samdec_export.precision.options import Conversion, ConvertOptions

__all__ = ["THRESHOLDS", "EngineConfig", "Gate", "Latency", "RunConfig", "Thresholds", "key_of"]


THRESHOLDS: Final = ("iou", "flipped", "pixels", "best_mask", "iou_predictions", "logits")
"""Each key of `gate.<precision>`: a field of `Tolerance`."""


FORM: Final = "{AXIS: [MIN, USUAL, MAX]}"


class _Mapping:
    """Axes as a config writes them: a mapping of names to [min, usual, max]."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _dims,
            handler.generate_schema(dict[str, AxisRange]),
            serialization=core_schema.plain_serializer_function_ser_schema(_ranges),
        )


def _dims(ranges: Mapping[str, tuple[int, int, int]]) -> tuple[Dim, ...]:
    return tuple(Dim(name=name, min=low, opt=usual, max=high) for name, (low, usual, high) in ranges.items())


def _ranges(dims: tuple[Dim, ...]) -> dict[str, list[int]]:
    return {dim.name: [dim.min, dim.opt, dim.max] for dim in dims}


def _declared(options: type[Options], name: str, form: str = "", **schema: Any) -> Any:
    """Return the field of a choice whose value a config writes in a form of its own; all else is as declared."""
    choice = choices_of(options)[name]
    return Field(default=choice.default, description=choice.help.described(form), json_schema_extra=schema or None)


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


Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AxisRange: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    AfterValidator(_ascending),
]
Axes: TypeAlias = Annotated[tuple[Dim, ...], _Mapping]
Targets: TypeAlias = Annotated[tuple[Target, ...], AfterValidator(_each_once)]
Model: TypeAlias = Annotated[str, AfterValidator(_known_model), WithJsonSchema({"type": "string", "enum": [*MODELS]})]


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Part of a config: unknown keys are refused, nothing changes after reading."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """Read a section whose keys are all commented out, which is None to YAML, and keys by their former names."""
        if not isinstance(values, dict):
            return {} if values is None else values
        declared = choices_of(cls) if is_dataclass(cls) else {}
        former = {choice.help.former: name for name, choice in declared.items() if name not in values}
        return {former.get(key, key): value for key, value in values.items()}


class ConvertConfig(Section, ConvertOptions, frozen=True):
    """What is asked of a conversion to fp16 or bf16."""

    def options(self, precision: LowPrecision) -> Conversion:
        """Return the same for the stage."""
        return options_of(Conversion, self, precision=precision)


class EngineConfig(Section, EngineOptions, frozen=True):
    """Which engines are built, and how."""

    build: Literal["auto"] | Annotated[tuple[EngineName, ...], AfterValidator(_each_once)] = "auto"
    """auto: what is installed and can build here, TensorRT before TensorRT-RTX. A list: these, and an error where one
    cannot; a process judges engines of one kind only. []: none."""
    precisions: Annotated[tuple[Precision, ...], AfterValidator(_each_once)] | None = None
    """Precisions to build in, among those of the run; all of them where this is left out."""
    targets: Targets = _declared(EngineOptions, "targets")
    profiles: tuple[Axes, ...] = _declared(EngineOptions, "profiles", FORM)

    def options(self, engine: EngineName) -> BuildOptions:
        """Return the same for the stage; a choice that only one engine has reaches that one alone."""
        targets = tuple(target for target in RTX_TARGETS if target in self.targets)  # oldest first
        others = {name: choices_of(EngineOptions)[name].default for name, own in OF_ONE_ENGINE.items() if own != engine}
        return options_of(BuildOptions, self, **{"targets": targets, **others, "engine": engine})


class ParityConfig(Section, SweepOptions, frozen=True):
    """What a file is compared with eager PyTorch on; ranges are measured on recorded inputs too."""


class BenchConfig(Section, BenchOptions, frozen=True):
    """What is timed: every combination of sizes; files in ONNX Runtime on the CPU, engines on the GPU here."""

    enabled: bool = True
    """Time the files."""

    @property
    def options(self) -> BenchOptions:
        """Return the same for the stage."""
        return options_of(BenchOptions, self)


class Thresholds(Section, frozen=True):
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


class Latency(Section, frozen=True):
    """How slow a file may be against a recorded benchmark."""

    baseline: Path
    """A bench.json that an earlier run wrote, or the JSON that samdec-export bench printed, on the same machine."""
    ratio: Positive = 1.1
    """Largest median time, as a multiple of the baseline's."""


class Gate(Section, frozen=True):
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
        """Return the limits of a precision: its own, with what is set here in their place."""
        own: Thresholds = getattr(self, precision)
        given = {key: getattr(own, key) for key in THRESHOLDS if getattr(own, key) is not None}
        return replace(TOLERANCES[precision], **given)

    def limits(self, precision: Precision) -> dict[str, float]:
        """Return the limits of a precision by the keys of this section."""
        tolerance = self.tolerance(precision)
        return {key: getattr(tolerance, key) for key in THRESHOLDS}


class RunConfig(Section, GraphOptions, ExportOptions, frozen=True):
    """Everything that a run is asked for."""

    model: Model | None = _declared(ExportOptions, "model")
    ranges: Axes = _declared(GraphOptions, "ranges", FORM, default={})
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
            raise ValueError(error.spelled(key_of)) from error
        if not self.precisions:
            raise ValueError("precisions is empty: there would be nothing to deliver.")
        if stray := {*(self.engines.precisions or ())} - {*self.precisions}:
            raise ValueError(f"engines.precisions has {', '.join(sorted(stray))}, which precisions has not.")
        built = {*(self.engines.precisions or self.precisions)}
        if "sm75" in self.engines.targets and not (built == {"fp16"} and self.convert.all_matmuls):
            raise ValueError("engines.targets has sm75, which needs engines.precisions [fp16] and convert.all_matmuls.")
        if self.gate.latency and not self.bench.enabled:
            raise ValueError("gate.latency needs the benchmark, and bench.enabled is false.")
        return self

    @property
    def graph_options(self) -> GraphOptions:
        """Return what is asked of the graph."""
        return options_of(GraphOptions, self)

    @property
    def low_precisions(self) -> tuple[LowPrecision, ...]:
        """Return precisions that are converted to."""
        return tuple(precision for precision in self.precisions if precision != "fp32")

    @property
    def engine_precisions(self) -> tuple[Precision, ...]:
        """Return precisions that engines are built in."""
        return self.precisions if self.engines.precisions is None else self.engines.precisions


def key_of(name: str, value: str = "") -> str:
    """Return how a config writes a choice, such as `convert.max_flips`; one that it has no key for stays as it was."""
    if name == "precision":
        return f"precisions: [{value}]"
    key = KEYS.get(name)
    if key is None:
        return f"{{{name}={value}}}" if value else f"{{{name}}}"
    return f"{key}: {value.lower() if value in ('True', 'False') else value}" if value else key


KEYS: Final = {
    name: f"{section}.{name}" if section else name
    for section, kind in (
        ("parity", ParityConfig),
        ("bench", BenchConfig),
        ("engines", EngineConfig),
        ("convert", ConvertConfig),
        ("", RunConfig),
    )
    for name in kind.model_fields
}
"""Each choice's key, by its name."""
