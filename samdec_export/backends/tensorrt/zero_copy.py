"""Engines on torch's CUDA tensors: TensorRT reads and writes their memory, and nothing is copied.

For users with embeddings on the GPU already, and for the benchmark, which replays a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch

from samdec_export.backends.tensorrt.load import LoadedEngine
from samdec_export.backends.tensorrt.messages import journal
from samdec_export.backends.tensorrt.options import profile_for
from samdec_export.core.errors import EngineError
from samdec_export.core.feeds import sizes_of
from samdec_export.core.runner import Feeds, Outputs
from samdec_export.core.signature import TensorSpec

__all__ = ["CapturedRun", "ZeroCopyRunner"]

BURST = 20
"""Runs that a timer times at once: a GPU that waits between runs lowers its clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRun:
    """One run of one shape as a CUDA graph. Write into `inputs`, replay, read `outputs`; their addresses are in it."""

    graph: torch.cuda.CUDAGraph
    stream: torch.cuda.Stream
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]

    def replay(self) -> None:
        """Run again, behind what the current stream has to do."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.graph.replay()
        torch.cuda.current_stream().wait_stream(self.stream)

    def seconds(self) -> list[float]:
        """Time a few replays, each between two events of the GPU's own clock."""
        with torch.cuda.stream(self.stream):
            marks = [torch.cuda.Event(enable_timing=True)]
            marks[0].record()
            for _ in range(BURST):
                self.graph.replay()
                marks.append(torch.cuda.Event(enable_timing=True))
                marks[-1].record()
        self.stream.synchronize()
        return [1e-3 * start.elapsed_time(end) for start, end in pairwise(marks)]


class ZeroCopyRunner:
    """Runs an engine on CUDA tensors, on a stream of its own.

    Args:
        loaded: The engine.
        device: Where tensors lie.

    Raises:
        EngineError: TensorRT refuses to run it.
    """

    def __init__(self, loaded: LoadedEngine, device: str = "cuda") -> None:
        self.loaded = loaded
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream()
        self._mark = len(journal(loaded.api).records)
        self._context = loaded.context()
        self._profile = 0
        self._storage: dict[str, torch.Tensor] = {}

    @property
    def name(self) -> str:
        """Return a name such as `TensorRT-RTX 1.7.1`."""
        return self.loaded.name

    def launch(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put one run on the GPU's queue: the current stream waits for it, the host does not.

        Args:
            inputs: Contiguous tensors on the device, with the types and shapes of the signature.

        Returns:
            The outputs by name, in buffers that the next run writes to again.

        Raises:
            EngineError: No profile holds the sizes, an input is not such a tensor, or TensorRT refuses.
        """
        self._check(inputs)
        self.stream.wait_stream(torch.cuda.current_stream())
        outputs = self._bind(inputs)
        self._enqueue()
        torch.cuda.current_stream().wait_stream(self.stream)
        return outputs

    def run(self, feeds: Feeds) -> Outputs:
        """Run NumPy arrays, which are copied to the GPU and back.

        Raises:
            EngineError: As `launch` does.
        """
        outputs = self.launch(self._staged(feeds))
        self.stream.synchronize()
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in outputs.items()}

    def capture(self, feeds: Feeds) -> CapturedRun:
        """Record one run of these sizes as a CUDA graph, which costs the host one call to replay.

        Raises:
            EngineError: As `launch` does.
        """
        inputs = self._staged(feeds)
        outputs = self.launch(inputs)  # the first run of a shape sets up what may not be done while capturing
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self._enqueue()
        return CapturedRun(graph=graph, stream=self.stream, inputs=inputs, outputs=outputs)

    def timer(self, feeds: Feeds) -> Callable[[], list[float]]:
        """Return what takes the seconds of a few replays of a CUDA graph, inputs and outputs on the GPU."""
        return self.capture(feeds).seconds

    def _staged(self, feeds: Feeds) -> dict[str, torch.Tensor]:
        staged = {}
        for spec in self.loaded.signature.inputs:
            array = np.ascontiguousarray(feeds[spec.name])
            buffer = self._buffer(spec, array.shape)
            buffer.copy_(torch.from_numpy(array))
            staged[spec.name] = buffer
        return staged

    def _check(self, inputs: Mapping[str, torch.Tensor]) -> None:
        for spec in self.loaded.signature.inputs:
            tensor = inputs[spec.name]
            fits = tensor.dtype == getattr(torch, spec.dtype) and tensor.device.type == self.device.type
            if not (fits and tensor.is_contiguous()):
                raise EngineError(
                    f"{spec.name} is {tensor.dtype} on {tensor.device}, and must be contiguous {spec.dtype} on "
                    f"{self.device}.",
                    "Convert it once, where it is made.",
                )

    def _bind(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tell TensorRT the shapes and addresses of a run; returns its outputs."""
        signature = self.loaded.signature
        sizes = self._sizes(inputs)
        self._choose(profile_for(self.loaded.profiles, sizes))
        outputs = {spec.name: self._buffer(spec, spec.concrete(sizes)) for spec in signature.outputs}
        for name, tensor in inputs.items():
            self._require(self._context.set_input_shape(name, tuple(tensor.shape)), f"the shape of {name}")
        for name, tensor in {**inputs, **outputs}.items():
            self._require(self._context.set_tensor_address(name, tensor.data_ptr()), f"the address of {name}")
        return outputs

    def _sizes(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
        try:
            return sizes_of(self.loaded.signature, cast(Feeds, inputs))  # of either kind only the shape is asked
        except ValueError as error:
            raise EngineError(f"The inputs do not fit: {error}.", "samdec-export inspect shows the axes.") from error

    def _choose(self, profile: int) -> None:
        if profile != self._profile:
            done = self._context.set_optimization_profile_async(profile, self.stream.cuda_stream)
            self._require(done, f"profile {profile}")
            self._profile = profile

    def _enqueue(self) -> None:
        self._require(self._context.execute_async_v3(self.stream.cuda_stream), "the run")

    def _buffer(self, spec: TensorSpec, shape: tuple[int, ...]) -> torch.Tensor:
        """Return memory of a tensor of any shape: the largest that was needed so far is kept."""
        count = math.prod(shape)
        storage = self._storage.get(spec.name)
        if storage is None or storage.numel() < count:
            self.stream.synchronize()  # a run may still use the smaller one, which is given back
            storage = torch.empty(count, dtype=getattr(torch, spec.dtype), device=self.device)
            self._storage[spec.name] = storage
        return storage[:count].view(shape)

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise self.loaded.refusal(what, self._mark)
