"""From tokens to masks: hypernetworks, and an upscaling that keeps channels last until the masks are made.

I images, P prompts of an image, M masks, h x w image tokens, L = h*w, C channels; E and F are the channels after the
first and the second upscaling. Weights are stored as they multiply from the right, (in, out).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export.models.sam.common import MLP, LayerNorm2d, constant, linear, split

__all__ = ["Head", "Hypernetworks", "Upscaling"]

SUBPIXELS = 4
"""Pixels that a transposed convolution with kernel 2 and stride 2 makes of one."""


class Head(nn.Module):
    """An MLP of which only some outputs are wanted: (..., C) -> (..., outputs)."""

    def __init__(self, source: MLP, outputs: slice) -> None:
        super().__init__()
        like, pairs = _layers(source)
        pairs[-1] = (pairs[-1][0][:, outputs], pairs[-1][1][outputs])
        self.weights = nn.ParameterList(constant(weight, like) for weight, _ in pairs)
        self.biases = nn.ParameterList(constant(bias, like) for _, bias in pairs)

    def forward(self, x: Tensor) -> Tensor:
        return _chain(x, self.weights, self.biases)


class Hypernetworks(nn.Module):
    """The MLP of each mask token, all in one batched product a layer: (I, P, M, C) -> (I, P, M, F)."""

    def __init__(self, sources: list[MLP]) -> None:
        super().__init__()
        like = _layers(sources[0])[0]
        layers = list(zip(*(_layers(source)[1] for source in sources), strict=True))  # a row per depth, a pair per mask
        self.weights = nn.ParameterList(constant(torch.stack([w for w, _ in pairs]), like) for pairs in layers)
        self.biases = nn.ParameterList(constant(torch.stack([b for _, b in pairs])[:, None], like) for pairs in layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply each token's own MLP. Prompts become rows, so that each weight is read once for all of them."""
        rows = tokens.permute(2, 0, 1, 3).flatten(1, 2)  # (M, I*P, C)
        rows = _chain(rows, self.weights, self.biases)  # (M, I*P, F)
        return split(rows.transpose(0, 1), 0, *tokens.shape[:2])  # (I, P, M, F)


class Upscaling(nn.Module):
    """Image tokens (I, P, L, C) and hypernetwork outputs (I, P, M, F) to mask logits (I, P, M, 4h, 4w).

    A transposed convolution with kernel 2 and stride 2 is a product per token. Both stay in token order, and the
    masks are dotted out before their pixels are put in place: M channels move and not E or F.
    """

    own_pixel: Tensor

    def __init__(self, source: nn.Sequential) -> None:
        super().__init__()
        first, second = cast("nn.ConvTranspose2d", source[0]), cast("nn.ConvTranspose2d", source[3])
        norm = cast("LayerNorm2d", source[1])
        like = first.weight
        # A row of the first upscaling's pixels at a time: what the second one makes is the largest tensor of the graph.
        weight, bias = _token_weights(first)
        self.first = nn.ParameterList(constant(row, like) for row in weight.chunk(2, dim=1))  # 2 x (C, 2*E)
        self.first_bias = nn.ParameterList(constant(row, like) for row in bias.chunk(2))  # 2 x (2*E)
        weight, bias = _token_weights(second)
        self.second = constant(weight, like)  # (E, 4*F)
        # Two axes keep ONNX Runtime from fusing bias and GELU: its BiasGelu takes longer than the two, and cannot
        # work in place on what is the largest tensor of the graph.
        self.second_bias = constant(bias[None], like)  # (1, 4*F)
        self.norm = nn.LayerNorm(norm.weight.shape[0], eps=norm.eps, dtype=like.dtype)
        self.norm.load_state_dict(norm.state_dict())
        self.norm.requires_grad_(False)
        own_pixel = torch.eye(SUBPIXELS, dtype=like.dtype)[:, None, None]  # (4, 1, 1, 4)
        self.register_buffer("own_pixel", own_pixel, persistent=False)

    def forward(self, keys: Tensor, hyper: Tensor, height: int, width: int) -> Tensor:
        readout = (hyper.mT[:, :, None, :, :, None] * self.own_pixel).flatten(4, 5).flatten(2, 3)  # (I, P, 4*F, M*4)
        rows = [
            self._row(keys @ weight + bias, readout, height, width)
            for weight, bias in zip(self.first, self.first_bias, strict=True)
        ]  # 2 x (I, P, M, h, 8*w)
        return torch.stack(rows, dim=4).reshape(*hyper.shape[:3], 4 * height, 4 * width)

    def _row(self, x: Tensor, readout: Tensor, height: int, width: int) -> Tensor:
        """Make two rows of masks of one row of each image token's pixels: (I, P, L, 2*E) -> (I, P, M, h, 8*w).

        Each of the four pixels that the second upscaling makes has its own columns of `readout`.
        """
        x = F.gelu(self.norm(split(x, -1, 2, -1))).flatten(2, 3)  # (I, P, L*2, E)
        x = F.gelu(x @ self.second + self.second_bias)  # (I, P, L*2, 4*F)
        logits = x @ readout  # (I, P, L*2, M*4)
        images, prompts = logits.shape[:2]
        # Two moves, of neighbours and then of whole rows, take less than one of single pixels.
        pairs = logits.reshape(images * prompts, 2 * height * width, -1, 2).transpose(1, 2)  # (I*P, M*2, L*2, 2)
        lines = pairs.reshape(-1, 2, height, 4 * width).transpose(1, 2)  # (I*P*M, h, 2, 4*w)
        return lines.reshape(images, prompts, -1, height, 8 * width)


def _token_weights(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return a weight (in, out, 2, 2) as (in, 2*2*out), and its bias repeated to (4*out), in float64."""
    weight = layer.weight.detach().double().permute(0, 2, 3, 1).flatten(1)  # (in, y*x*out)
    if layer.bias is None:
        raise ValueError("the upscaling has biases in every published checkpoint")
    return weight, layer.bias.detach().double().repeat(SUBPIXELS)


def _layers(source: MLP) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return a tensor of the MLP's dtype, and each layer's weight and bias in float64."""
    layers = [cast("nn.Linear", layer) for layer in source.layers]
    return layers[0].weight, list(map(linear, layers))


def _chain(x: Tensor, weights: nn.ParameterList, biases: nn.ParameterList) -> Tensor:
    """Apply linear layers with ReLU between them."""
    *hidden, last = zip(weights, biases, strict=True)
    for weight, bias in hidden:
        x = F.relu(x @ weight + bias)
    out: Tensor = x @ last[0] + last[1]
    return out
