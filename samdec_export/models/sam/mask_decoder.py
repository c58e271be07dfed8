"""The mask decoder as its authors define it. This is the parity reference and stays plain.

B prompts, T tokens, N points, M mask tokens, L = h*w image tokens, C channels.
Module and parameter names are those of the published Segment Anything checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samdec_export.models.registry import Architecture
from samdec_export.models.sam.common import MLP, LayerNorm2d
from samdec_export.models.sam.transformer import TwoWayTransformer

__all__ = ["MaskDecoder"]


class MaskDecoder(nn.Module):
    """Predict masks and their quality from image and prompt embeddings.

    Source: segment-anything `modeling/mask_decoder.py`; Ultralytics `models/sam/modules/decoders.py`.
    """

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        width = sizes.embed_dim
        self.transformer = TwoWayTransformer(sizes.depth, width, sizes.num_heads, sizes.mlp_dim)
        self.num_mask_tokens = sizes.num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(width, width, width // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(width, sizes.iou_head_hidden_dim, self.num_mask_tokens, sizes.iou_head_depth)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict as `predict_masks`: masks 1 to M-1, for ambiguous prompts, or mask 0."""
        masks, iou = self.predict_masks(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict every mask: logits (B, M, 4h, 4w) and predicted IoU (B, M).

        Args:
            image_embeddings: (1, C, h, w), or (B, C, h, w) with an image for each prompt.
            image_pe: (1, C, h, w).
            sparse_prompt_embeddings: (B, N, C).
            dense_prompt_embeddings: (B, C, h, w).
        """
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (1+M, C)
        output_tokens = output_tokens.expand(sparse_prompt_embeddings.shape[0], -1, -1)  # (B, 1+M, C)
        tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)  # (B, T, C)
        # One image serves every prompt by broadcasting: repeat_interleave would become OneHot and Tile.
        src = image_embeddings + dense_prompt_embeddings  # (B, C, h, w)
        hs, image_tokens = self.transformer(src, image_pe, tokens)  # (B, T, C), (B, L, C)
        iou_token_out = hs[:, 0]  # (B, C)
        mask_tokens_out = hs[:, 1 : 1 + self.num_mask_tokens]  # (B, M, C)
        image = image_tokens.transpose(1, 2).unflatten(-1, src.shape[-2:])  # (B, C, h, w)
        upscaled = self.output_upscaling(image)  # (B, C/8, 4h, 4w)
        hyper_in = torch.stack(
            [mlp(mask_tokens_out[:, index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (B, M, C/8)
        masks = (hyper_in @ upscaled.flatten(2)).unflatten(-1, upscaled.shape[-2:])  # (B, M, 4h, 4w)
        return masks, self.iou_prediction_head(iou_token_out)
