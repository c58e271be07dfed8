"""The toy model: a few convolutions as the image encoder, and this project's prompt encoder and mask decoder.

B pictures, P prompts of a picture, N points, M masks, C channels, h x w image tokens, S = 16 h.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export import models
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.common import LayerNorm2d
from samdec_export.models.sam.decoder import SamDecoder
from toy.pictures import Array, Picture

__all__ = ["WEIGHTS", "ToySam", "embed", "load"]

WEIGHTS = Path(models.__file__).with_name("sam_toy.safetensors")

STEM, MIDDLE, DEEP = 32, 48, 80
"""Channels at strides 4, 8 and 16."""


class ToySam(nn.Module):
    """Names of parameters are those of a Segment Anything checkpoint: image_encoder, prompt_encoder, mask_decoder."""

    def __init__(self) -> None:
        super().__init__()
        architecture = MODELS["sam_toy"].architecture
        self.grid = architecture.grid
        self.image_encoder = ImageEncoder(architecture.embed_dim)
        decoder = SamDecoder(architecture)
        self.prompt_encoder, self.mask_decoder = decoder.prompt_encoder, decoder.mask_decoder
        nn.init.normal_(self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix)

    def forward(
        self, embeddings: Tensor, points: Tensor, labels: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts.

        Args:
            embeddings: (B, C, h, w).
            points: (B, P, N, 2) in pixels.
            labels: (B, P, N).
            masks: Logits of an earlier round, (B, P, 4h, 4w).

        Returns:
            Mask logits (B, P, M, 4h, 4w) and predicted IoU (B, P, M), M = 4.
        """
        pictures, prompts = points.shape[:2]
        grid = self.grid
        sparse = self.prompt_encoder.embed_points(points, labels, grid, grid).flatten(0, 1)  # (B*P, N, C)
        if masks is None:
            dense = self.prompt_encoder.no_mask()  # (1, C, 1, 1)
        else:
            dense = self.prompt_encoder.embed_masks(masks.flatten(0, 1).unsqueeze(1))  # (B*P, C, h, w)
        each = embeddings.unsqueeze(1).expand(-1, prompts, -1, -1, -1).flatten(0, 1)  # (B*P, C, h, w)
        logits, iou = self.mask_decoder.predict_masks(each, self.prompt_encoder.dense_pe(grid, grid), sparse, dense)
        return logits.unflatten(0, (pictures, prompts)), iou.unflatten(0, (pictures, prompts))


class ImageEncoder(nn.Module):
    """Pictures (B, 3, S, S) from 0 to 1 -> embeddings (B, C, h, w)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, STEM, kernel_size=4, stride=4)})
        self.blocks = nn.Sequential(
            Residual(STEM),
            nn.Conv2d(STEM, MIDDLE, kernel_size=3, stride=2, padding=1),
            *(Residual(MIDDLE) for _ in range(2)),
            nn.Conv2d(MIDDLE, DEEP, kernel_size=3, stride=2, padding=1),
            *(Residual(DEEP) for _ in range(3)),
        )
        self.neck = nn.Sequential(
            nn.Conv2d(DEEP, embed_dim, kernel_size=1, bias=False),
            LayerNorm2d(embed_dim),
            nn.Conv2d(embed_dim, embed_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(embed_dim),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Shapes as on the class."""
        embeddings: Tensor = self.neck(self.blocks(self.patch_embed["proj"](4 * (pictures - 0.5))))
        return embeddings


class Residual(nn.Module):
    """Norm, ReLU, convolution, added to what came in: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as on the class."""
        out: Tensor = x + self.conv(F.relu(self.norm(x)))
        return out


def load(path: Path = WEIGHTS) -> ToySam:
    """The model of a checkpoint: its image encoder is stored in half precision."""
    model = ToySam()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return model.eval()


@torch.no_grad()
def embed(model: ToySam, pictures: Sequence[Picture]) -> Array:
    """The pictures' embeddings, (B, C, h, w) float32."""
    batch = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2)
    embeddings: Array = model.image_encoder(batch).numpy()
    return embeddings
