"""From tokens to masks: hypernetworks, and an upscaling that keeps channels last until the masks are made.

I images, P prompts of an image, M masks, h x w image tokens, L = h*w, C channels; E and F are the channels after the
first and the second upscaling. Weights are stored as they multiply from the right, (in, out).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export.models.common import MLP, LayerNorm2d
from samdec_export.models.fused_attention import constant, linear, split

__all__ = ["Head", "Hypernetworks", "Upscaling"]

SUBPIXELS = 4
"""Pixels that a transposed convolution with kernel 2 and stride 2 makes of one."""


class Head(nn.Module):
    """An MLP of which only some outputs are wanted: (..., C) -> (..., outputs)."""

    def __init__(self, source: MLP, outputs: slice) -> None:
        super().__init__()
        like = _weight(source)
        pairs = _layers(source)
        pairs[-1] = (pairs[-1][0][:, outputs], pairs[-1][1][outputs])
        self.weights = nn.ParameterList(constant(weight, like) for weight, _ in pairs)
        self.biases = nn.ParameterList(constant(bias, like) for _, bias in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers, with ReLU between them."""
        return _chain(x, self.weights, self.biases)


class Hypernetworks(nn.Module):
    """The MLP of each mask token, all in one batched product a layer: (I, P, M, C) -> (I, P, M, F)."""

    def __init__(self, sources: list[MLP]) -> None:
        super().__init__()
        like = _weight(sources[0])
        layers = list(zip(*map(_layers, sources), strict=True))  # a row per depth, in it a pair per mask
        self.weights = nn.ParameterList(constant(torch.stack([w for w, _ in pairs]), like) for pairs in layers)
        self.biases = nn.ParameterList(constant(torch.stack([b for _, b in pairs])[:, None], like) for pairs in layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Each token through its own MLP. Prompts become rows, so that each weight is read once for all of them."""
        rows = tokens.permute(2, 0, 1, 3).flatten(1, 2)  # (M, I*P, C)
        rows = _chain(rows, self.weights, self.biases)  # (M, I*P, F)
        return split(rows.transpose(0, 1), 0, *tokens.shape[:2])  # (I, P, M, F)


class Upscaling(nn.Module):
    """Image tokens (I, P, L, C) and hypernetwork outputs (I, P, M, F) to mask logits (I, P, M, 4h, 4w).

    A transposed convolution with kernel 2 and stride 2 is a product per token. Both stay in token order, and the
    masks are dotted out before their pixels are put in place: M channels move and not E or F.
    """

    def __init__(self, source: nn.Sequential) -> None:
        super().__init__()
        first, second = cast("nn.ConvTranspose2d", source[0]), cast("nn.ConvTranspose2d", source[3])
        norm = cast("LayerNorm2d", source[1])
        like = first.weight
        self.first, self.first_bias = _token_weights(first, like)
        second_weight, second_bias = _token_weights(second, like)
        # A half at a time: what the second upscaling makes is the largest tensor of the graph.
        self.second = nn.ParameterList(constant(half, like) for half in second_weight.chunk(2, dim=1))  # 2 x (E, 2*F)
        # Two axes keep ONNX Runtime from fusing bias and GELU: its BiasGelu takes longer than the two, and cannot
        # work in place on what is the largest tensor of the graph.
        self.second_bias = nn.ParameterList(constant(half[None], like) for half in second_bias.chunk(2))  # 2 x (1, 2*F)
        self.norm = nn.LayerNorm(norm.weight.shape[0], eps=norm.eps, dtype=like.dtype)
        self.norm.load_state_dict(norm.state_dict())
        self.norm.requires_grad_(False)

    def forward(self, keys: Tensor, hyper: Tensor, height: int, width: int) -> Tensor:
        """Upscale twice, dot, put pixels in place."""
        x = split(keys @ self.first + self.first_bias, -1, SUBPIXELS, -1)  # (I, P, L, 4, E)
        x = F.gelu(self.norm(x)).flatten(2, 3)  # (I, P, L*4, E)
        halves = [
            self._row(F.gelu(x @ weight + bias), hyper, height, width)
            for weight, bias in zip(self.second, self.second_bias, strict=True)
        ]  # 2 x (I, P, M, 2h, 4w)
        return torch.stack(halves, dim=-2).flatten(-3, -2)  # (I, P, M, 4h, 4w)

    def _row(self, x: Tensor, hyper: Tensor, height: int, width: int) -> Tensor:
        """Every other row of the masks: (I, P, L*4, 2*F) and (I, P, M, F) -> (I, P, M, 2h, 4w).

        Pixels lie as (h, w, y, x, x), y and x of the first upscaling and x of the second: four neighbours move as one.
        """
        logits = (split(x, -1, 2, -1).flatten(2, 3) @ hyper.mT).mT  # (I, P, M, L*8)
        images, prompts, masks = logits.shape[:3]
        pixels = logits.reshape(-1, width, 2, 4).transpose(1, 2)  # (I*P*M*h, 2, w, 4)
        return pixels.reshape(images, prompts, masks, 2 * height, 4 * width)


def _token_weights(layer: nn.ConvTranspose2d, like: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    """(in, out, 2, 2) -> (in, 2*2*out), and its bias repeated to (4*out)."""
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)  # (in, y*x*out)
    if layer.bias is None:
        raise ValueError("the upscaling has biases in every published checkpoint")
    return constant(weight, like), constant(layer.bias.repeat(SUBPIXELS), like)


def _layers(source: MLP) -> list[tuple[Tensor, Tensor]]:
    return [linear(cast("nn.Linear", layer)) for layer in source.layers]


def _weight(source: MLP) -> Tensor:
    return cast("nn.Linear", source.layers[0]).weight


def _chain(x: Tensor, weights: nn.ParameterList, biases: nn.ParameterList) -> Tensor:
    """Linear layers with ReLU between them."""
    *hidden, last = zip(weights, biases, strict=True)
    for weight, bias in hidden:
        x = F.relu(x @ weight + bias)
    out: Tensor = x @ last[0] + last[1]
    return out
