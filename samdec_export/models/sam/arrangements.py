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
        """Return mask logits (I, P, M, 4h, 4w) and predicted IoU (I, P, M).

        Args:
            image: Image embeddings (I, C, h, w).
            image_pe: Their positional encoding (1, C, h, w).
            sparse: Embedded points (I, P, N, C).
            dense: Embedded masks (I or 1, P or 1, C, h or 1, w or 1).
        """


def arrange(
    decoder: MaskDecoder, options: GraphOptions, *, points: int, prompts: int, shared: bool, one_image: bool
) -> tuple[Arrangement, tuple[str, ...]]:
    """Return a decoder arranged for a graph, and a line for each choice with its reason.

    It is fastest for so many points of a prompt and prompts of an image. With `shared` the mask prompt is one constant
    for all prompts of an image; with `one_image` the graph takes one image only.
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
        prompts = sparse.shape[:2]  # (I, P)
        if not self.one_image:  # one image is broadcast to its prompts
            image = image.unsqueeze(1).expand(-1, prompts[1], -1, -1, -1).flatten(0, 1)  # (I*P, C, h, w)
        masks, iou = self.decoder.predict_masks(image, image_pe, sparse.flatten(0, 1), dense.flatten(0, 1))
        match self.masks:  # (I*P, M, 4h, 4w), (I*P, M)
            case "multi":
                masks, iou = masks[:, 1:], iou[:, 1:]
            case "single":
                masks, iou = masks[:, :1], iou[:, :1]
            case "best":
                row = torch.arange(iou.shape[0], device=iou.device) * iou.shape[1]
                row = row + best_mask(iou, sparse.shape[2])[:, 0]  # (I*P,)
                best = masks.flatten(0, 1).index_select(0, row), iou.flatten(0, 1).index_select(0, row)
                masks, iou = best[0].unsqueeze(1), best[1].unsqueeze(1)
        return cast("Tensor", masks.unflatten(0, prompts)), cast("Tensor", iou.unflatten(0, prompts))
