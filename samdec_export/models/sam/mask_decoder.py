"""The mask decoder as its authors define it. This is the parity reference and stays plain.

B prompts, T tokens, N points, M mask tokens, L = h*w image tokens, C channels.
Module and parameter names are those of the published Segment Anything checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samdec_export.models.sam.common import MLP, LayerNorm2d

__all__ = ["MaskDecoder"]


class MaskDecoder(nn.Module):
    """Predict masks and their quality from image and prompt embeddings.

    Source: segment-anything `modeling/mask_decoder.py`; Ultralytics `models/sam/modules/decoders.py`.

    Args:
        transformer_dim: Channels C of the embeddings.
        transformer: A `TwoWayTransformer` of that width.
        num_multimask_outputs: Masks offered for an ambiguous prompt; one more is kept for an unambiguous prompt.
        iou_head_depth: Linear layers in the head that predicts mask quality.
        iou_head_hidden_dim: Its hidden width.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, transformer_dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, transformer_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(transformer_dim, transformer_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(transformer_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(transformer_dim // 4, transformer_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(transformer_dim, transformer_dim, transformer_dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(transformer_dim, iou_head_hidden_dim, self.num_mask_tokens, iou_head_depth)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks for ambiguous prompts, or the one for unambiguous prompts.

        Args:
            image_embeddings: (1, C, h, w), or (B, C, h, w) with an image for each prompt.
            image_pe: (1, C, h, w).
            sparse_prompt_embeddings: (B, N, C).
            dense_prompt_embeddings: (B, C, h, w).
            multimask_output: Masks 1 to M-1 if true, mask 0 if not.

        Returns:
            Mask logits (B, 3 or 1, 4h, 4w) and predicted IoU (B, 3 or 1).
        """
        masks, iou_pred = self.predict_masks(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou_pred[:, chosen]

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict every mask: logits (B, M, 4h, 4w) and predicted IoU (B, M). Arguments as for `forward`."""
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
