"""Small blocks that several modules share; names of modules and parameters are those of the published checkpoints."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MLP", "LayerNorm2d", "MLPBlock", "best_mask", "constant", "linear", "split"]


class MLP(nn.Module):
    """Linear layers with ReLU between them. Source: segment-anything `modeling/mask_decoder.py`."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(x)
        return out


class MLPBlock(nn.Module):
    """The transformer's feed-forward part, (..., C) -> (..., C). Source: segment-anything `modeling/common.py`."""

    def __init__(self, embedding_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embedding_dim, mlp_dim)
        self.lin2 = nn.Linear(mlp_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(F.relu(self.lin1(x)))
        return out


class LayerNorm2d(nn.Module):
    """Normalise the channels of each pixel, (B, C, h, w). Source: segment-anything `modeling/common.py`."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)  # (B, C, h, w)
        variance = centred.pow(2).mean(1, keepdim=True)  # (B, 1, h, w)
        normed = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


def best_mask(iou: Tensor, points: int) -> Tensor:
    """Return the index (..., 1) of the one mask to return, given the predicted quality of each, (..., M).

    It is mask 0 from three points on, padding included, else the best of the others. Source: segment-anything
    `utils/onnx.py`, `select_masks`.
    """
    is_first = torch.arange(iou.shape[-1], device=iou.device) == 0  # (M,)
    weight = torch.where(is_first, 1000.0, 0.0).to(iou.dtype)
    return (iou + weight * (points - 2.5)).argmax(dim=-1, keepdim=True)


def constant(value: Tensor, like: Tensor) -> nn.Parameter:
    """Return a frozen copy of weights that were rearranged in float64, rounded once to the dtype of `like`."""
    rounded = value.detach().to(like.dtype).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(rounded, requires_grad=False)


def linear(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return a layer's weight as (in, out) and its bias, in float64."""
    return layer.weight.detach().double().T, layer.bias.detach().double()


def split(x: Tensor, axis: int, *sizes: int) -> Tensor:
    """Make several axes of one; a size may be -1."""
    parts: Tensor = x.unflatten(axis, sizes)
    return parts
