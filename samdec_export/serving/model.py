"""A model as a server sees it: names, types and sizes, and whether requests can be put into one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.signature import Axis, Dim, Signature, TensorSpec

__all__ = ["FILE_NAMES", "ServedBackend", "ServedModel", "WarmUp"]

ServedBackend: TypeAlias = Literal["onnxruntime", "tensorrt"]

FILE_NAMES: Final[dict[ServedBackend, str]] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""What Triton's backends call the file of a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """A request that is made before a model counts as ready: a size for each dynamic axis."""

    name: str
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What every version of a model has in common.

    Args:
        name: What clients ask for.
        backend: Which of Triton's backends loads its files.
        signature: Inputs and outputs.
        profiles: The sizes it takes: of an ONNX file what it was validated over, of an engine what it was built for.
    """

    name: str
    backend: ServedBackend
    signature: Signature
    profiles: tuple[Profile, ...]

    @property
    def batch_axis(self) -> Dim | None:
        """Return the dynamic axis that every input and output starts with; None where they do not share one.

        Triton puts requests together along the first axis of all tensors, so one tensor without it rules that out.
        """
        firsts: set[Axis] = {spec.shape[0] for spec in self.signature.tensors}
        first = firsts.pop()
        return first if not firsts and isinstance(first, Dim) else None

    @property
    def max_batch_size(self) -> int:
        """Return the most items of a batch; 0 where requests cannot be put together."""
        return max((dim.max for dim in self._batch_ranges()), default=0)

    @property
    def min_batch_size(self) -> int:
        """Return the fewest items of a batch; 0 where requests cannot be put together."""
        return min((dim.min for dim in self._batch_ranges()), default=0)

    def _batch_ranges(self) -> list[Dim]:
        axis = self.batch_axis
        return [dim for profile in self.profiles for dim in profile if axis and dim.name == axis.name]

    def dims(self, spec: TensorSpec) -> list[int]:
        """Return the shape of a tensor as Triton writes it: -1 for what varies, without the axis of a batch."""
        shape = spec.shape[1:] if self.batch_axis else spec.shape
        return [axis if isinstance(axis, int) else -1 for axis in shape]

    def warm_ups(self) -> list[WarmUp]:
        """Return the usual sizes of each profile, and the same with a whole batch."""
        axis = self.batch_axis
        found: dict[str, WarmUp] = {}
        for profile in self.profiles:
            usual = {dim.name: dim.opt for dim in profile}
            full = {dim.name: dim.max if axis and dim.name == axis.name else dim.opt for dim in profile}
            for sizes in (usual, full):
                name = ",".join(f"{key}={size}" for key, size in sizes.items()) or "fixed"
                found.setdefault(name, WarmUp(name=name, sizes=sizes))
        return list(found.values())
