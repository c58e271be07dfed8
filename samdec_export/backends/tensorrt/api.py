"""The part of TensorRT's Python API that is used, as types: neither flavour ships stubs that fit both.

TensorRT 10.12 and later, TensorRT 11 and TensorRT-RTX share these names; what only one of them has stands apart. The
tables at the end say which Protocol stands for which class, so that a test can look each name up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final, Protocol, cast

from samdec_export.core.errors import DependencyError
from samdec_export.core.packages import ENGINES, EngineName, tool_versions

__all__ = [
    "PROTOCOLS",
    "RTX_PROTOCOLS",
    "Api",
    "Config",
    "Context",
    "EngineBuilder",
    "Member",
    "Network",
    "NetworkLayer",
    "OnnxRefitter",
    "Parser",
    "PlanEngine",
    "RtxApi",
    "RtxConfig",
    "RtxRuntimeConfig",
    "declared_version",
    "installed_version",
    "load",
]


class Member(Protocol):
    """A member of one of TensorRT's enumerations."""

    @property
    def name(self) -> str: ...
    def __int__(self) -> int: ...


class NetworkFlags(Protocol):
    STRONGLY_TYPED: Member


class BuilderFlags(Protocol):
    TF32: Member
    REFIT: Member
    STRIP_PLAN: Member
    VERSION_COMPATIBLE: Member


class MemoryPools(Protocol):
    WORKSPACE: Member


class CompatibilityLevels(Protocol):
    AMPERE_PLUS: Member


class Tensor(Protocol):
    name: str

    @property
    def dtype(self) -> Member: ...
    @property
    def shape(self) -> Sequence[int]: ...
    def get_dimension_name(self, index: int, /) -> str: ...


class NetworkLayer(Protocol):
    """What TensorRT made of a node, or of a part of it."""

    name: str
    metadata: str

    @property
    def type(self) -> Member: ...
    @property
    def num_outputs(self) -> int: ...
    def get_output(self, index: int, /) -> Tensor: ...


class Network(Protocol):
    """What a parser made of a graph."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    def get_layer(self, index: int, /) -> NetworkLayer: ...
    def get_input(self, index: int, /) -> Tensor: ...
    def get_output(self, index: int, /) -> Tensor: ...


class ParseError(Protocol):
    def code(self) -> Member: ...
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """Reads an ONNX file into a network."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int, /) -> ParseError: ...
    def parse_from_file(self, path: str, /) -> bool: ...


class ShapeProfile(Protocol):
    def set_shape(self, name: str, low: Sequence[int], usual: Sequence[int], high: Sequence[int], /) -> None: ...


class TimingCache(Protocol):
    def serialize(self) -> Any: ...


class Config(Protocol):
    """Settings of a build."""

    builder_optimization_level: int
    hardware_compatibility_level: Member
    progress_monitor: object

    def set_flag(self, flag: Member, /) -> None: ...
    def clear_flag(self, flag: Member, /) -> None: ...
    def set_memory_pool_limit(self, pool: Member, size: int, /) -> None: ...
    def add_optimization_profile(self, profile: ShapeProfile, /) -> int: ...
    def create_timing_cache(self, content: bytes, /) -> TimingCache: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> TimingCache: ...


class RtxConfig(Config, Protocol):
    """Settings that only TensorRT-RTX has: the GPU generations to build for."""

    num_compute_capabilities: int

    def set_compute_capability(self, capability: Member, index: int, /) -> bool: ...


class EngineBuilder(Protocol):
    """Makes all the others; it must outlive them."""

    def create_network(self, flags: int, /) -> Network: ...
    def create_builder_config(self) -> Config: ...
    def create_optimization_profile(self) -> ShapeProfile: ...
    def build_serialized_network(self, network: Network, config: Config, /) -> Any: ...


class TensorModes(Protocol):
    INPUT: Member
    OUTPUT: Member


class RuntimeConfig(Protocol):
    """Settings of an execution context."""


class RtxRuntimeConfig(RuntimeConfig, Protocol):
    """TensorRT-RTX compiles kernels for a shape when it meets it; this says when."""

    dynamic_shapes_kernel_specialization_strategy: Member


class SpecializationStrategies(Protocol):
    EAGER: Member


class Context(Protocol):
    """Runs an engine on addresses of device memory, one shape at a time."""

    def set_optimization_profile_async(self, index: int, stream: int, /) -> bool: ...
    def set_input_shape(self, name: str, shape: Sequence[int], /) -> bool: ...
    def set_tensor_address(self, name: str, address: int, /) -> bool: ...
    def execute_async_v3(self, stream: int, /) -> bool: ...


class PlanEngine(Protocol):
    """A plan that was loaded onto the GPU."""

    @property
    def num_io_tensors(self) -> int: ...
    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Member: ...
    def get_tensor_dtype(self, name: str, /) -> Member: ...
    def is_shape_inference_io(self, name: str, /) -> bool: ...
    def create_runtime_config(self) -> RuntimeConfig: ...
    def create_execution_context(self, config: RuntimeConfig = ..., /) -> Context | None: ...


class PlanRuntime(Protocol):
    """Loads plans. Only a plan of `version_compat` brings host code, which must be allowed."""

    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, plan: bytes, /) -> PlanEngine | None: ...


class EngineRefitter(Protocol):
    """Puts weights into an engine."""

    def refit_cuda_engine(self) -> bool: ...


class OnnxRefitter(Protocol):
    """Gives a refitter the weights of an ONNX file."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int, /) -> ParseError: ...
    def refit_from_file(self, path: str, /) -> bool: ...


class Api(Protocol):
    """Either module. `ILogger` and `IProgressMonitor` are to be derived from."""

    __version__: str
    Builder: Callable[[object], EngineBuilder]
    OnnxParser: Callable[[Network, object], Parser]
    Runtime: Callable[[object], PlanRuntime]
    Refitter: Callable[[PlanEngine, object], EngineRefitter]
    OnnxParserRefitter: Callable[[EngineRefitter, object], OnnxRefitter]
    ILogger: type[Any]
    IProgressMonitor: type[Any]
    NetworkDefinitionCreationFlag: NetworkFlags
    BuilderFlag: BuilderFlags
    MemoryPoolType: MemoryPools
    HardwareCompatibilityLevel: CompatibilityLevels
    TensorIOMode: TensorModes

    def __hash__(self) -> int: ...


class RtxApi(Api, Protocol):
    """TensorRT-RTX. The members of `ComputeCapability` are SM75 and so on, as `RTX_TARGETS` lists them."""

    ComputeCapability: object
    DynamicShapesKernelSpecializationStrategy: SpecializationStrategies


PROTOCOLS: Final[dict[str, type]] = {
    "": Api,
    "NetworkDefinitionCreationFlag": NetworkFlags,
    "BuilderFlag": BuilderFlags,
    "MemoryPoolType": MemoryPools,
    "HardwareCompatibilityLevel": CompatibilityLevels,
    "ITensor": Tensor,
    "ILayer": NetworkLayer,
    "INetworkDefinition": Network,
    "ParserError": ParseError,
    "OnnxParser": Parser,
    "IOptimizationProfile": ShapeProfile,
    "ITimingCache": TimingCache,
    "IBuilderConfig": Config,
    "Builder": EngineBuilder,
    "TensorIOMode": TensorModes,
    "IRuntimeConfig": RuntimeConfig,
    "IExecutionContext": Context,
    "ICudaEngine": PlanEngine,
    "Runtime": PlanRuntime,
    "Refitter": EngineRefitter,
    "OnnxParserRefitter": OnnxRefitter,
}
"""Class of both modules (the module itself: empty), and the Protocol that lists what is used of it."""

RTX_PROTOCOLS: Final[dict[str, type]] = {
    "": RtxApi,
    "IBuilderConfig": RtxConfig,
    "IRuntimeConfig": RtxRuntimeConfig,
    "DynamicShapesKernelSpecializationStrategy": SpecializationStrategies,
}
"""Likewise, what only TensorRT-RTX has."""


def load(engine: EngineName) -> Api:
    """Import an engine's module.

    Raises:
        DependencyError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        if engine == "rtx":
            import tensorrt_rtx as module
        else:
            import tensorrt as module
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"{ENGINES[engine].title} cannot be imported: {error}.",
            f"pip install 'samdec-export[{ENGINES[engine].extra}]'.",
        ) from error
    return cast(Api, module)


def declared_version(engine: EngineName) -> str:
    """Return the version that an installed engine's package declares, without importing it; empty where there is none.

    A copy that no package declares is imported to find out.
    """
    declared = tool_versions(*ENGINES[engine].packages)
    if declared:
        return next(iter(declared.values()))
    return installed_version(engine) if find_spec(ENGINES[engine].module) else ""


def installed_version(engine: EngineName) -> str:
    """Return the version of an engine that can be imported, or an empty text."""
    try:
        return load(engine).__version__
    except (DependencyError, AttributeError):  # an empty folder of that name imports, and has no version
        return ""
