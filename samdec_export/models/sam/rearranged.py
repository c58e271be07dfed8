"""What the fused modules make of a layer's weights: rearranged in float64, rounded once, frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["constant", "linear", "split"]


def constant(value: Tensor, like: Tensor) -> nn.Parameter:
    """Return a frozen copy of a float64 result of rearranging, rounded once to the dtype of `like`."""
    rounded = value.detach().to(like.dtype).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(rounded, requires_grad=False)


def linear(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return a layer's weight as (in, out) and its bias, in float64."""
    return layer.weight.detach().double().T, layer.bias.detach().double()


def split(x: Tensor, axis: int, *sizes: int) -> Tensor:
    """Make several axes of one; a size may be -1."""
    parts: Tensor = x.unflatten(axis, sizes)
    return parts
