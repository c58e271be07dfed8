"""Eager PyTorch: the reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from samdec_export.core.dtypes import FORMATS, Precision
from samdec_export.core.options import Provider
from samdec_export.core.runner import Array, Feeds, Outputs
from samdec_export.core.signature import Dim, Signature, TensorSpec

__all__ = ["EagerRunner", "cuda_device"]

CHUNK = 8
"""Slices of an independent axis that run at once: 64 prompts of a full-size decoder would take gigabytes."""


class EagerRunner:
    """Runs an exportable module as it is.

    Args:
        graph: A module whose forward takes and returns what `signature` lists.
        signature: Names, dtypes and axes.
        exact: Compute in float64, to measure the reference's own rounding.
        whole: Run every case at once; the default runs independent axes in parts, to need little memory.
        precision: What a plain `.to(dtype)` of module and inputs makes of it, coordinates and positional encoding
            included; outputs are returned as float32. An image size stays float32: it is a shape, not a value.
        device: Where it runs: `cpu`, or `cuda` for the first GPU. TF32 is off there.

    Raises:
        ValueError: Both `exact` and a precision other than fp32.
    """

    def __init__(
        self,
        graph: nn.Module,
        signature: Signature,
        *,
        exact: bool = False,
        whole: bool = False,
        precision: Precision = "fp32",
        device: Provider = "cpu",
    ) -> None:
        if exact and precision != "fp32":
            raise ValueError(f"a module runs in float64 or in {precision}, not in both")
        self.dtype: torch.dtype = torch.float64 if exact else getattr(torch, FORMATS[precision].dtype)
        self.source = graph
        self.device = device
        self.signature = signature
        self.whole = whole

    @cached_property
    def graph(self) -> nn.Module:
        """Return the module in its type and on its device, copied when it first runs: float64 is often not needed."""
        as_it_is = self.dtype == torch.float32 and self.device == "cpu"
        return self.source if as_it_is else copy.deepcopy(self.source).to(self.device, self.dtype)

    @classmethod
    def compiled(cls, graph: nn.Module, signature: Signature) -> EagerRunner:
        """Return a runner of the same through torch.compile, each shape compiled for itself: for benchmarks."""
        return cls(torch.compile(graph, dynamic=False), signature, whole=True)  # type: ignore[arg-type]  # a Module

    @property
    def name(self) -> str:
        """Return a name such as `torch 2.13.0 eager float32`, with the device where it is not the CPU."""
        where = "" if self.device == "cpu" else f" {self.device}"
        return f"torch {torch.__version__} eager {str(self.dtype).removeprefix('torch.')}{where}"

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name; independent axes are run in parts, which changes no result's meaning."""
        independent = [] if self.whole else [dim for dim in self.signature.dims if dim.independent]
        return self._run_parts(feeds, independent)

    def _run_parts(self, feeds: Feeds, dims: list[Dim]) -> Outputs:
        if not dims:
            return self._run_whole(feeds)
        dim, *rest = dims
        limit = CHUNK if not rest else 1
        parts = [self._run_parts(part, rest) for part in _split(feeds, self.signature.inputs, dim, limit)]
        return {
            spec.name: np.concatenate([part[spec.name] for part in parts], axis=spec.shape.index(dim))
            for spec in self.signature.outputs
        }

    def _run_whole(self, feeds: Feeds) -> Outputs:
        tensors = [self._tensor(spec, feeds[spec.name]) for spec in self.signature.inputs]
        with torch.inference_mode(), _no_tf32():
            results = self.graph(*tensors)
        return {spec.name: _array(result) for spec, result in zip(self.signature.outputs, results, strict=True)}

    def _tensor(self, spec: TensorSpec, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        low = self.dtype.itemsize < 4
        if not tensor.is_floating_point() or (low and spec.content == "image_size"):
            return tensor
        return tensor.to(self.dtype)


def cuda_device() -> str | None:
    """Return the name of torch's CUDA device, or None."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Multiply and convolve fp32 with all its bits, which a GPU does not do by itself."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # its stub lacks conv
    former = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, former, strict=True):
            setting.fp32_precision = precision


def _array(result: torch.Tensor) -> Array:
    array: Array = (result.float() if result.dtype.itemsize < 4 else result).cpu().numpy()
    return array


def _split(feeds: Feeds, specs: tuple[TensorSpec, ...], dim: Dim, limit: int) -> Iterator[Feeds]:
    axes = {spec.name: spec.shape.index(dim) for spec in specs if dim in spec.shape}
    length = next(feeds[name].shape[axis] for name, axis in axes.items())
    for start in range(0, length, limit):
        window = range(start, min(start + limit, length))
        yield {name: array.take(window, axis=axes[name]) if name in axes else array for name, array in feeds.items()}
