"""How a decoder is computed in an exported graph, and the one place where that is chosen.

I images, P prompts of an image, N points, M masks asked for, C channels, h x w image tokens.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from samdec_export.core.options import GraphOptions, MasksMode
from samdec_export.models.sam.common import best_mask
from samdec_export.models.sam.fused import FusedMaskDecoder, choose_forms
from samdec_export.models.sam.mask_decoder import MaskDecoder

__all__ = ["Arrangement", "ReferenceArrangement", "arrange"]


class Arrangement(Protocol):
    """A decoder for many prompts of many images."""

    def __call__(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            image: Image embeddings (I, C, h, w).
            image_pe: Their positional encoding (1, C, h, w).
            sparse: Embedded points (I, P, N, C).
            dense: Embedded masks (I or 1, P or 1, C, h or 1, w or 1).

        Returns:
            Mask logits (I, P, M, 4h, 4w) and predicted IoU (I, P, M).
        """
        ...


def arrange(
    decoder: MaskDecoder, options: GraphOptions, *, points: int, prompts: int, shared: bool, one_image: bool
) -> tuple[Arrangement, tuple[str, ...]]:
    """Arrange a decoder for a graph.

    Args:
        decoder: The loaded decoder.
        options: Which graph; says which arrangement and which masks.
        points: The number of points to be fastest for.
        prompts: The number of prompts of an image to be fastest for.
        shared: The mask prompt is one constant for all prompts of an image.
        one_image: The graph takes one image only.

    Returns:
        The arrangement, and a line for each choice with its reason.
    """
    if options.arrangement == "reference":
        return ReferenceArrangement(decoder, options.masks_mode, one_image), ()
    forms = choose_forms(decoder, masks=options.masks_mode, points=points, prompts=prompts, shared=shared)
    return FusedMaskDecoder(decoder, masks=options.masks_mode, forms=forms), forms.reasons


class ReferenceArrangement(nn.Module):
    """The decoder as its authors define it; the masks that were asked for are taken from all of them."""

    def __init__(self, decoder: MaskDecoder, masks: MasksMode, one_image: bool) -> None:
        super().__init__()
        self.decoder, self.masks, self.one_image = decoder, masks, one_image

    def forward(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Decode, as `Arrangement` says."""
        prompts = sparse.shape[:2]  # (I, P)
        if not self.one_image:  # one image is broadcast to its prompts
            image = image.unsqueeze(1).expand(-1, prompts[1], -1, -1, -1).flatten(0, 1)  # (I*P, C, h, w)
        masks, iou = self.decoder.predict_masks(image, image_pe, sparse.flatten(0, 1), dense.flatten(0, 1))
        masks, iou = self._select(masks, iou, sparse.shape[2])  # (I*P, M, 4h, 4w), (I*P, M)
        return cast("Tensor", masks.unflatten(0, prompts)), cast("Tensor", iou.unflatten(0, prompts))

    def _select(self, masks: Tensor, iou: Tensor, points: int) -> tuple[Tensor, Tensor]:
        match self.masks:
            case "multi":
                return masks[:, 1:], iou[:, 1:]
            case "single":
                return masks[:, :1], iou[:, :1]
            case "best":
                return _select_best(masks, iou, points)
            case _:
                return masks, iou


def _select_best(masks: Tensor, iou: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Return one mask a prompt, (B, 1, 4h, 4w) and (B, 1), of M; B prompts."""
    count, total = iou.shape
    row = torch.arange(count, device=iou.device) * total + best_mask(iou, points)[:, 0]  # (B,)
    best = masks.flatten(0, 1).index_select(0, row), iou.flatten(0, 1).index_select(0, row)
    return best[0].unsqueeze(1), best[1].unsqueeze(1)
