"""Clicks, boxes and masks as embeddings.

B prompts, N points, C channels, h x w the grid of image tokens. Module and parameter names are those of the
published Segment Anything checkpoints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from samdec_export.models.contracts import IMAGE_STRIDE
from samdec_export.models.sam.common import LayerNorm2d

__all__ = ["PositionEmbeddingRandom", "PromptEncoder"]

PADDING_LABEL = -1


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions. Source: segment-anything `modeling/prompt_encoder.py`."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, num_pos_feats))

    def forward(self, coords: Tensor) -> Tensor:
        """Encode positions (..., 2), x and y in [0, 1], as (..., 2*num_pos_feats)."""
        signed = 2 * coords - 1  # (..., 2)
        frequencies = self.positional_encoding_gaussian_matrix  # (2, F)
        # Their product, written out: it stays in fp32, and TensorRT-RTX multiplies no fp32 matrices on Turing.
        turns = signed[..., :1] * frequencies[0] + signed[..., 1:] * frequencies[1]  # (..., F)
        phases = 2 * math.pi * turns
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Encode point prompts (boxes are two points) and mask prompts.

    Point labels: 0 background, 1 foreground, 2 and 3 a box's top left and bottom right corner, -1 padding.
    Source: segment-anything `modeling/prompt_encoder.py`, `utils/onnx.py`.
    """

    def __init__(self, embed_dim: int, mask_in_chans: int) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def dense_pe(self, height: int, width: int) -> Tensor:
        """Return the positional encoding of a grid's cell centres, (1, C, h, w)."""
        like = self.pe_layer.positional_encoding_gaussian_matrix
        y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
        x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
        centres = torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)], dim=-1)  # (h, w, 2)
        encoding: Tensor = self.pe_layer(centres)  # (h, w, C)
        return encoding.permute(2, 0, 1).unsqueeze(0)

    def embed_points(self, coords: Tensor, labels: Tensor, height: int, width: int) -> Tensor:
        """Embed points as (..., N, C), on a grid of so many image tokens.

        `coords` (..., N, 2) are x and y in pixels of the image as it entered the image encoder, `labels` (..., N).
        """
        x, y = (coords + 0.5).unbind(-1)  # the centre of the pixel that was clicked
        unit = torch.stack([x / (IMAGE_STRIDE * width), y / (IMAGE_STRIDE * height)], dim=-1)  # (..., N, 2)
        encoding = self.pe_layer(unit)  # (..., N, C)
        label = labels.unsqueeze(-1)  # (..., N, 1)
        encoding = torch.where(label == PADDING_LABEL, torch.zeros_like(encoding), encoding)
        # A matmul with the 0/1 indicator adds exactly one row: exact, and free of OneHot and of scatters.
        codes = torch.arange(PADDING_LABEL, len(self.point_embeddings), device=labels.device).to(labels.dtype)  # (5,)
        embeddings = [self.not_a_point_embed, *self.point_embeddings]
        rows = torch.cat([embedding.get_parameter("weight") for embedding in embeddings])  # (5, C)
        return encoding + (label == codes).to(coords.dtype) @ rows

    def embed_masks(self, masks: Tensor) -> Tensor:
        """Embed mask logits (B, 1, 4h, 4w) as (B, C, h, w)."""
        embedded: Tensor = self.mask_downscaling(masks)
        return embedded

    def no_mask(self) -> Tensor:
        """Return the embedding that stands for "no mask prompt" at every position, (1, C, 1, 1)."""
        return self.no_mask_embed.weight[:, :, None, None]
