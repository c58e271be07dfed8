"""The one place where shapes are written: dynamic shapes, ONNX axis names, feeds and profiles follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

__all__ = ["Axis", "Content", "DType", "Dim", "Scaled", "Signature", "TensorSpec", "axis_size"]

DType: TypeAlias = Literal["float32", "float16", "int64"]

Content: TypeAlias = Literal[
    "embedding", "encoding", "coords", "labels", "logits", "flag", "image_size", "masks", "scores"
]

NARROW: frozenset[Content] = frozenset({"embedding", "encoding", "logits", "flag", "masks", "scores"})
"""What float16 can hold: a pixel's position among a thousand would lose its fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dim:
    """A dynamic axis: its ONNX name and the range it is built and validated for.

    Along an `independent` axis every slice is computed alone, so a large case may be run in parts.
    """

    name: str
    min: int
    opt: int
    max: int
    independent: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"{self.name}: 1 <= min <= opt <= max does not hold for {self.min}:{self.opt}:{self.max}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the distinct values among min, opt and max, ascending."""
        return tuple(sorted({self.min, self.opt, self.max}))


@dataclass(frozen=True, slots=True)
class Scaled:
    """An axis that is always `factor` times another one, such as a mask's height."""

    dim: Dim
    factor: int


Axis: TypeAlias = int | Dim | Scaled


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int:
    """Return the length of `axis` when each `Dim` has the length given in `sizes`."""
    match axis:
        case Dim(name=name):
            return sizes[name]
        case Scaled(dim=dim, factor=factor):
            return factor * sizes[dim.name]
        case _:
            return axis


def axis_label(axis: Axis) -> str | int:
    """Return how ONNX writes `axis`: a dim_param or a dim_value."""
    match axis:
        case Dim(name=name):
            return name
        case Scaled(dim=dim, factor=factor):
            return f"{factor}*{dim.name}"
        case _:
            return axis


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output.

    `content` says what the values mean, for feeds that know no graph. `extent` is the upper bound of each component
    of the last axis: (x, y) pixels for `coords`; for `image_size` it names the values themselves.
    """

    name: str
    dtype: DType
    shape: tuple[Axis, ...]
    content: Content
    extent: tuple[Axis, ...] = ()

    def concrete(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for one assignment of sizes to dynamic axes."""
        return tuple(axis_size(axis, sizes) for axis in self.shape)

    @property
    def labels(self) -> tuple[str | int, ...]:
        """Return the shape as ONNX writes it."""
        return tuple(axis_label(axis) for axis in self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        ranges: dict[str, Dim] = {}
        for dim in self._every_dim():
            if ranges.setdefault(dim.name, dim) != dim:
                raise ValueError(f"axis {dim.name} has two ranges: {ranges[dim.name]} and {dim}")

    def _every_dim(self) -> Iterator[Dim]:
        for spec in self.tensors:
            for axis in (*spec.shape, *spec.extent):
                if isinstance(axis, Scaled):
                    yield axis.dim
                elif isinstance(axis, Dim):
                    yield axis

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Return every dynamic axis once, in order of appearance."""
        return tuple(dict.fromkeys(self._every_dim()))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Return inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    def in_fp16(self) -> Signature:
        """Return the same with embeddings, masks and scores in float16; pixels and labels stay as they are."""

        def narrow(spec: TensorSpec) -> TensorSpec:
            return replace(spec, dtype="float16") if spec.content in NARROW else spec

        return Signature(inputs=tuple(map(narrow, self.inputs)), outputs=tuple(map(narrow, self.outputs)))

    def within(self, ranges: Iterable[Dim]) -> Signature:
        """Return the same with other ranges for some axes, such as those of an engine's profile."""
        narrowed = {dim.name: dim for dim in ranges}

        def narrow(axis: Axis) -> Axis:
            match axis:
                case Dim(name=name):
                    return narrowed.get(name, axis)
                case Scaled(dim=dim, factor=factor):
                    return Scaled(narrowed.get(dim.name, dim), factor)
                case _:
                    return axis

        def spec_within(spec: TensorSpec) -> TensorSpec:
            return replace(spec, shape=tuple(map(narrow, spec.shape)), extent=tuple(map(narrow, spec.extent)))

        return Signature(inputs=tuple(map(spec_within, self.inputs)), outputs=tuple(map(spec_within, self.outputs)))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back: axes by label, ranges once each."""
        specs = {
            key: [
                {**asdict(spec), "shape": [*spec.labels], "extent": [*map(axis_label, spec.extent)]}
                for spec in getattr(self, key)
            ]
            for key in ("inputs", "outputs")
        }
        return {"axes": [asdict(dim) for dim in self.dims], **specs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        """Read what `to_json` wrote; KeyError, TypeError, ValueError: `data` is not such an object."""
        dims = {axis["name"]: Dim(**axis) for axis in data["axes"]}
        return cls(
            inputs=tuple(_spec_from_json(spec, dims) for spec in data["inputs"]),
            outputs=tuple(_spec_from_json(spec, dims) for spec in data["outputs"]),
        )


def _spec_from_json(data: Mapping[str, Any], dims: Mapping[str, Dim]) -> TensorSpec:
    axes = {key: tuple(_axis_from_label(label, dims) for label in data[key]) for key in ("shape", "extent")}
    return TensorSpec(name=data["name"], dtype=data["dtype"], content=data["content"], **axes)


def _axis_from_label(label: str | int, dims: Mapping[str, Dim]) -> Axis:
    if isinstance(label, int):
        return label
    factor, star, name = label.partition("*")
    return Scaled(dims[name], int(factor)) if star else dims[label]
