"""A TensorRT that computes on the CPU: it takes addresses and shapes as the real one does, and streams are pretended.

The engine returns y = (2 x, x + label) for x of (batch, 3) and one label a row.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from samdec_export.core.signature import Dim, Signature, TensorSpec

BATCH = Dim(name="batch", min=1, opt=2, max=8)
SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=(BATCH, 3), content="embedding"),
        TensorSpec(name="label", dtype="int64", shape=(BATCH,), content="labels"),
    ),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(BATCH, 6), content="embedding"),),
)
TYPES = {"x": ("INPUT", "FLOAT"), "label": ("INPUT", "INT64"), "y": ("OUTPUT", "FLOAT")}
C_TYPES: dict[str, Any] = {"x": ctypes.c_float, "label": ctypes.c_int64, "y": ctypes.c_float}


def expected(x: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([2 * x, x + label[:, None]], axis=1, dtype=np.float32)


@dataclass
class Named:
    name: str


@dataclass
class Context:
    """Records what it is told, and computes in the memory that it is shown."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    profiles: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    refuses: bool = False
    capturing: list[Callable[[], None]] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profiles.append(index)
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.refuses:
            return False
        self.streams.append(stream)
        shapes = {**self.shapes, "y": (self.shapes["x"][0], 6)}
        views = {name: self._memory(name, shape) for name, shape in shapes.items()}

        def compute() -> None:
            views["y"][:] = expected(views["x"], views["label"])

        compute() if self.capturing is None else self.capturing.append(compute)
        return True

    def _memory(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((C_TYPES[name] * count).from_address(self.addresses[name])).reshape(shape)


@dataclass
class Engine:
    types: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(TYPES))
    sizes: tuple[str, ...] = ()
    context: Context | None = field(default_factory=Context)
    configs: list[Any] = field(default_factory=list)
    refitted: list[str] = field(default_factory=list)

    @property
    def num_io_tensors(self) -> int:
        return len(self.types)

    def get_tensor_name(self, index: int) -> str:
        return list(self.types)[index]

    def get_tensor_mode(self, name: str) -> Named:
        return Named(self.types[name][0])

    def get_tensor_dtype(self, name: str) -> Named:
        return Named(self.types[name][1])

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.sizes

    def create_runtime_config(self) -> Any:
        return Named("config")

    def create_execution_context(self, *configs: Any) -> Context | None:
        self.configs += configs
        return self.context


class Api:
    """A module of TensorRT, whichever."""

    __version__ = "11.4.0"

    def __init__(self, engine: Engine | None, *, fits: bool = True) -> None:
        self.runtimes: list[Any] = []
        api = self

        class ILogger:
            pass

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.engine_host_code_allowed = False
                self.logger = logger
                api.runtimes.append(self)

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if engine is None:
                    self.logger.log(Named("ERROR"), "the plan is of another version.")
                return engine

        class Refitter:
            def __init__(self, engine: Engine, logger: Any) -> None:
                self.engine = engine

            def refit_cuda_engine(self) -> bool:
                return True

        class OnnxParserRefitter:
            num_errors = 0

            def __init__(self, refitter: Refitter, logger: Any) -> None:
                self.refitter, self.logger = refitter, logger

            def refit_from_file(self, path: str) -> bool:
                self.refitter.engine.refitted.append(path)
                if not fits:
                    self.logger.log(Named("ERROR"), "no weights of that name")
                return fits

        self.ILogger, self.Runtime = ILogger, Runtime
        self.Refitter, self.OnnxParserRefitter = Refitter, OnnxParserRefitter
        self.DynamicShapesKernelSpecializationStrategy = Named("EAGER")
        self.DynamicShapesKernelSpecializationStrategy.EAGER = "eager"  # type: ignore[attr-defined]


class Stream:
    cuda_stream = 7

    def wait_stream(self, other: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 2.5


class Graph:
    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        for step in self.work:
            step()


def pretend_streams(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    """Let torch.cuda be what is above; what `context` runs inside a capture is kept for the replay."""

    @contextlib.contextmanager
    def capture(graph: Graph, stream: Stream) -> Iterator[None]:
        context.capturing = graph.work
        yield
        context.capturing = None

    for name, value in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": Stream,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
