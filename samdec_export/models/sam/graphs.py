"""What is exported: a module for each contract, and the one place where it is chosen how its decoder is computed.

B prompts, N points, M masks, C channels, h x w image tokens, I images, P prompts of an image.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export.core.artifact import Record
from samdec_export.core.options import GraphName, GraphOptions, MasksMode
from samdec_export.core.packages import EXPORT, tool_versions
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.contracts import IMAGE_STRIDE, Axes, contract
from samdec_export.models.sam.common import best_mask
from samdec_export.models.sam.decoder import SamDecoder
from samdec_export.models.sam.fused import FusedMaskDecoder, choose_forms
from samdec_export.models.sam.mask_decoder import MaskDecoder
from samdec_export.models.sam.prompt_encoder import PromptEncoder

__all__ = ["ExportGraph", "build_graph", "graph_to_export"]

MAX_IMAGE_SIDE = 1 << 16
"""Longest side of an original image, in pixels."""


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


class ExportGraph(nn.Module):
    """A module that takes and returns what its `signature` lists; `choices` says what was chosen for it, and why."""

    decode: Arrangement
    choices: tuple[str, ...] = ()
    one_image: ClassVar[bool] = True
    one_mask_embedding: ClassVar[bool] = False
    """Every prompt has the same mask embedding."""

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: Axes) -> None:
        super().__init__()
        self.signature = contract(axes, options)
        self.encoder = model.prompt_encoder
        decoder, masks = model.mask_decoder, options.masks_mode
        if options.arrangement == "reference":
            self.decode = ReferenceArrangement(decoder, masks, self.one_image)
        else:
            points, prompts, shared = axes.points.opt, axes.prompts.opt, self.one_mask_embedding
            forms = choose_forms(decoder, masks=masks, points=points, prompts=prompts, shared=shared)
            self.decode, self.choices = FusedMaskDecoder(decoder, masks=masks, forms=forms), forms.reasons


class DecoderGraph(ExportGraph):
    """The mask decoder's own `forward`."""

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sparse, dense = sparse_prompt_embeddings.unsqueeze(0), dense_prompt_embeddings.unsqueeze(0)  # (1, B, ...)
        masks, iou = self.decode(image_embeddings, image_pe, sparse, dense)
        return masks.squeeze(0), iou.squeeze(0)


class PromptsGraph(ExportGraph):
    """Prompt encoder and decoder for many prompts of many images, without a mask prompt."""

    one_image = False
    one_mask_embedding = True

    def forward(self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode_prompts(image_embeddings, point_coords, point_labels, self.encoder.no_mask().unsqueeze(0))

    def decode_prompts(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode with `dense` (I or 1, P or 1, C, h or 1, w or 1) as the mask prompts' embedding."""
        height, width = image_embeddings.shape[-2:]
        sparse = self.encoder.embed_points(point_coords, point_labels, height, width)  # (I, P, N, C)
        return self.decode(image_embeddings, self.encoder.dense_pe(height, width), sparse, dense)


class MaskPromptsGraph(PromptsGraph):
    """`PromptsGraph` whose prompts may each bring a mask from an earlier round."""

    one_mask_embedding = False

    def forward(  # type: ignore[override]  # the signature differs on purpose: two inputs more
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dense = _embed_mask_input(self.encoder, mask_input.flatten(0, 1), has_mask_input.flatten(0, 1))
        dense = dense.unflatten(0, mask_input.shape[:2])  # (I, P, C, h, w)
        return self.decode_prompts(image_embeddings, point_coords, point_labels, dense)


class MetaGraph(ExportGraph):
    """The contract of segment-anything's own ONNX file, masks resized to the original image.

    Source: segment-anything `utils/onnx.py`. `orig_im_size` is read at run time: one file serves every aspect ratio.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        height, width = image_embeddings.shape[-2:]
        sparse = self.encoder.embed_points(point_coords, point_labels, height, width).unsqueeze(0)  # (1, B, N, C)
        dense = _embed_mask_input(self.encoder, mask_input, has_mask_input).unsqueeze(0)  # (1, B, C, h, w)
        masks, iou = self.decode(image_embeddings, self.encoder.dense_pe(height, width), sparse, dense)
        low_res = masks.squeeze(0)  # (B, M, 4h, 4w)
        return _to_original_size(low_res, orig_im_size, height, width), iou.squeeze(0), low_res


def build_graph(model: SamDecoder, grid: int, options: GraphOptions) -> ExportGraph:
    """Return the graph that `options` ask for, in eval mode, of a decoder that is shared, not copied.

    `grid` is the number of image tokens along one side; with a dynamic grid, the most along each side.

    Raises:
        UsageError: A range is given for an axis that the graph does not have.
    """
    decoder = model.mask_decoder
    channels, mask_tokens = decoder.iou_token.embedding_dim, decoder.num_mask_tokens
    axes = Axes(options=options, channels=channels, grid=grid, mask_tokens=mask_tokens)
    graphs: dict[GraphName, type[ExportGraph]] = {
        "decoder": DecoderGraph,
        "prompts": MaskPromptsGraph if options.mask_input else PromptsGraph,
        "meta": MetaGraph,
    }
    return graphs[options.graph](model, options, axes).eval()


def graph_to_export(loaded: LoadedModel, options: GraphOptions) -> tuple[ExportGraph, Record]:
    """Return the graph that `options` ask for, and the record that an fp32 export of it carries.

    Raises:
        UsageError: The graph has no such axis.
    """
    graph = build_graph(loaded.decoder, loaded.grid, options)
    return graph, Record(
        format="onnx",
        precision="fp32",
        io="fp32",
        parent="",
        conversion={},
        kept={},
        model=loaded.spec.name,
        grid=loaded.grid,
        graph=options.graph,
        masks=options.masks_mode,
        mask_input=options.mask_input,
        dynamic_grid=options.dynamic_grid,
        arrangement=options.arrangement,
        choices=graph.choices,
        opset=options.opset,
        checkpoint=loaded.checkpoint,
        signature=graph.signature,
        tools=tool_versions(*EXPORT),
    )


def _embed_mask_input(encoder: PromptEncoder, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
    """Embed mask logits (B, 1, 4h, 4w) where flags (B,) or (1,) are set -> (B, C, h, w)."""
    return torch.where(has_mask_input[:, None, None, None] > 0.5, encoder.embed_masks(mask_input), encoder.no_mask())


def _to_original_size(masks: Tensor, orig_im_size: Tensor, height: int, width: int) -> Tensor:
    """Resize logits (B, M, 4h, 4w) -> (B, M, H, W): to the padded image, without its padding, to the original one.

    Source: segment-anything `utils/onnx.py`, `mask_postprocessing`.
    """
    padded = IMAGE_STRIDE * height, IMAGE_STRIDE * width
    masks = F.interpolate(masks, size=padded, mode="bilinear", align_corners=False)
    # The image fills the padded one along one side; on a square grid that is its longest side, as upstream says.
    scale = torch.minimum(padded[0] / orig_im_size[0], padded[1] / orig_im_size[1])
    unpadded = (scale * orig_im_size + 0.5).floor().to(torch.int64)
    masks = masks[..., : _length(unpadded[0], padded[0]), : _length(unpadded[1], padded[1])]
    original = orig_im_size.to(torch.int64)
    size = _length(original[0], MAX_IMAGE_SIDE), _length(original[1], MAX_IMAGE_SIDE)
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)


def _length(value: Tensor, limit: int) -> int:
    """Read a length from an int64 tensor. `item` without `int` keeps it symbolic for torch.export."""
    length = value.item()
    torch._check(length >= 1)
    torch._check(length <= limit)
    return cast(int, length)
