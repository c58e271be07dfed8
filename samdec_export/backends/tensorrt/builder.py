"""TensorRT and TensorRT-RTX: an ONNX file becomes an engine, in one code path for both.

Precision is what the tensors of the graph say (networks are strongly typed; TensorRT 11 has no other kind), so what
the parser made of the graph is the proof of it: the type of every layer is in the result.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from samdec_export.backends.tensorrt.api import (
    Api,
    Config,
    EngineBuilder,
    Network,
    NetworkLayer,
    RtxApi,
    RtxConfig,
    load,
)
from samdec_export.backends.tensorrt.messages import Journal, Monitor, journal, parser_errors
from samdec_export.backends.tensorrt.options import BuildOptions
from samdec_export.core.errors import EngineError, GraphError
from samdec_export.core.log import phases
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.core.signature import Dim, Scaled, Signature

__all__ = ["BuiltEngine", "EngineTensor", "Layer", "build_engine"]

ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
"""How the parser notes in a layer's metadata which node it was made for."""

MOST_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of the parsed network: TensorRT's names of its type and data type, and the ONNX node it is part of."""

    type: str
    dtype: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine; axes by name or size."""

    name: str
    kind: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A plan and what is known of it. `seconds` covers parsing and building; `timing_cache` is empty without one."""

    plan: bytes
    version: str
    layers: tuple[Layer, ...]
    tensors: tuple[EngineTensor, ...]
    warnings: tuple[str, ...]
    seconds: float
    timing_cache: bytes

    @property
    def histogram(self) -> dict[str, dict[str, int]]:
        """Return layers counted by type and data type, such as {"SOFTMAX": {"HALF": 7}}."""
        counts = Counter((layer.type, layer.dtype) for layer in self.layers)
        table: dict[str, dict[str, int]] = {}
        for (kind, dtype), count in sorted(counts.items()):
            table.setdefault(kind, {})[dtype] = count
        return table


def build_engine(path: Path, engine: EngineName, signature: Signature, wanted: BuildOptions) -> BuiltEngine:
    """Parse an ONNX file and build an engine of it.

    All of it runs in a thread of its own: TensorRT calls back into Python, where an interrupt must not be raised.

    Args:
        path: The ONNX file.
        engine: Which TensorRT.
        signature: Its inputs; axes that a profile leaves out take their ranges from here.
        wanted: Settings; `targets` are for TensorRT-RTX, which needs at least one.

    Raises:
        DependencyError: The engine is not installed.
        EngineError: The parser or the builder refuses; the message has its reasons.
        KeyboardInterrupt: The user's; the build was ended.
    """
    api = load(engine)
    title = f"{ENGINES[engine].title} {api.__version__}"
    with phases(f"Building with {title}") as shown, ThreadPoolExecutor(max_workers=1) as worker:
        monitor = Monitor(api, shown)
        try:
            return worker.submit(_build, api, title, path, signature, wanted, monitor).result()
        except KeyboardInterrupt:
            monitor.cancelled.set()
            raise


def _build(
    api: Api, title: str, path: Path, signature: Signature, wanted: BuildOptions, monitor: Monitor
) -> BuiltEngine:
    started = time.perf_counter()
    notes = journal(api)
    mark = len(notes.records)
    builder = api.Builder(notes.logger)
    network = _parse(api, builder, title, path, notes)
    config = _configure(api, builder, signature, wanted)
    config.progress_monitor = monitor.listener
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(title, path, notes.errors(mark), wanted)
    return BuiltEngine(
        plan=bytes(plan),
        version=api.__version__,
        layers=tuple(_layers(network)),
        tensors=tuple(_tensors(network, signature)),
        warnings=tuple(notes.warnings(mark)),
        seconds=time.perf_counter() - started,
        timing_cache=bytes(config.get_timing_cache().serialize()) if wanted.timing_cache else b"",
    )


def _parse(api: Api, builder: EngineBuilder, title: str, path: Path, notes: Journal) -> Network:
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, notes.logger)
    mark = len(notes.records)
    if parser.parse_from_file(str(path)):
        return network
    reasons = parser_errors(parser) or notes.errors(mark)
    raise EngineError(
        f"{title} cannot read {path}: {_first(reasons)}.",
        "Export it again with samdec-export onnx; the graphs decoder and prompts are made for TensorRT.",
    )


def _refusal(title: str, path: Path, reasons: list[str], wanted: BuildOptions) -> EngineError:
    advice = "Leave out options until it builds, and report what is left as a bug."
    if wanted.workspace and any(re.search(r"Requested size|workspace|memory", reason, re.I) for reason in reasons):
        advice = f"Give it more than {{workspace={wanted.workspace}}} (MB), or leave that out."
    return EngineError(f"{title} cannot build an engine of {path}: {_first(reasons)}.", advice)


def _first(reasons: Sequence[str]) -> str:
    """Return the first few reasons in a line; a long list repeats itself."""
    shown = "; ".join(reason.rstrip(". ") for reason in reasons[:MOST_ERRORS])
    return shown + (f"; and {len(reasons) - MOST_ERRORS} more" if len(reasons) > MOST_ERRORS else "") or "no reason"


def _configure(api: Api, builder: EngineBuilder, signature: Signature, wanted: BuildOptions) -> Config:
    config = builder.create_builder_config()
    _set_flags(api, config, wanted)
    if wanted.workspace is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, wanted.workspace << 20)
    if wanted.opt_level is not None:
        config.builder_optimization_level = wanted.opt_level
    if wanted.hardware_compat:
        config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS
    if wanted.targets:
        _set_targets(cast(RtxApi, api), cast(RtxConfig, config), wanted.targets)
    if wanted.timing_cache:
        _set_timing_cache(config, wanted.timing_cache)
    if signature.dims:
        for profile in wanted.profiles or ((),):
            _add_profile(builder, config, signature, profile)
    return config


def _set_flags(api: Api, config: Config, wanted: BuildOptions) -> None:
    """Set flags, and clear TF32: it is on by default, and would round an fp32 engine's matmuls to 10 bits."""
    flags = api.BuilderFlag
    chosen = (
        (flags.TF32, wanted.tf32),
        (flags.REFIT, wanted.refit),
        (flags.STRIP_PLAN, wanted.strip_weights),
        (flags.VERSION_COMPATIBLE, wanted.version_compat),
    )
    for flag, on in chosen:
        config.set_flag(flag) if on else config.clear_flag(flag)


def _set_targets(api: RtxApi, config: RtxConfig, targets: Sequence[str]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(api.ComputeCapability, target.upper()), index)


def _set_timing_cache(config: Config, path: Path) -> None:
    content = b""
    if path.exists():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise GraphError(f"{path} cannot be read: {error.strerror}.", "Name another {timing_cache}.") from error
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        raise EngineError(
            f"The timing cache {path} is not of this GPU and this version of TensorRT.", "Name another file for it."
        )


def _add_profile(builder: EngineBuilder, config: Config, signature: Signature, given: Iterable[Dim]) -> None:
    ranges = {dim.name: dim for dim in signature.dims} | {dim.name: dim for dim in given}
    lows, usuals, highs = (
        {name: getattr(dim, bound) for name, dim in ranges.items()} for bound in ("min", "opt", "max")
    )
    profile = builder.create_optimization_profile()
    for spec in signature.inputs:
        if any(isinstance(axis, Dim | Scaled) for axis in spec.shape):
            profile.set_shape(spec.name, spec.concrete(lows), spec.concrete(usuals), spec.concrete(highs))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError("TensorRT refuses the profile.", "Check {profiles}.")


def _layers(network: Network) -> Iterator[Layer]:
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            yield Layer(type=layer.type.name, dtype=layer.get_output(0).dtype.name, node=_node(layer))


def _node(layer: NetworkLayer) -> str:
    noted = ONNX_NODE.search(layer.metadata)
    return noted.group(1) if noted else layer.name


def _tensors(network: Network, signature: Signature) -> Iterator[EngineTensor]:
    """Yield sizes and types as TensorRT has them; of dynamic axes it keeps only the inputs' names."""
    labels = {spec.name: spec.labels for spec in (*signature.inputs, *signature.outputs)}
    found = [(network.get_input(index), "input") for index in range(network.num_inputs)]
    found += [(network.get_output(index), "output") for index in range(network.num_outputs)]
    for tensor, kind in found:
        shape = tuple(
            size if size >= 0 else tensor.get_dimension_name(axis) or labels[tensor.name][axis]
            for axis, size in enumerate(tensor.shape)
        )
        yield EngineTensor(name=tensor.name, kind=kind, dtype=tensor.dtype.name, shape=shape)
