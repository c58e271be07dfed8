"""What is exported: the three graph contracts, each owning its Signature.

B prompts, N points, M masks, C channels, h x w image tokens, I images, P prompts of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export.core.errors import UsageError
from samdec_export.core.options import GraphOptions
from samdec_export.core.signature import Axis, Dim, Scaled, Signature, TensorSpec
from samdec_export.models.sam.arrangements import arrange
from samdec_export.models.sam.decoder import SamDecoder
from samdec_export.models.sam.prompt_encoder import IMAGE_STRIDE, PromptEncoder

__all__ = ["ExportGraph", "build_graph"]

MASK_SCALE = 4
"""Mask pixels along one side of an image token."""

MAX_IMAGE_SIDE = 1 << 16
"""Longest side of an original image, in pixels."""


class ExportGraph(nn.Module):
    """A module whose forward takes and returns what its `signature` lists, in that order.

    `choices` says what was chosen for that signature, and why.
    """

    signature: Signature
    one_image: ClassVar[bool] = True
    one_mask_embedding: ClassVar[bool] = False
    """Every prompt has the same mask embedding."""

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: _Axes) -> None:
        super().__init__()
        self.encoder = model.prompt_encoder
        self.decode, self.choices = arrange(
            model.mask_decoder,
            options,
            points=axes.points.opt,
            prompts=axes.prompts.opt,
            shared=self.one_mask_embedding,
            one_image=self.one_image,
        )


class DecoderGraph(ExportGraph):
    """The mask decoder's own `forward`."""

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: _Axes) -> None:
        super().__init__(model, options, axes)
        batch, points = axes.batch(64), axes.points
        grid = (axes.channels, axes.height, axes.width)
        self.signature = Signature(
            inputs=(
                TensorSpec(name="image_embeddings", dtype="float32", shape=(1, *grid), content="embedding"),
                TensorSpec(name="image_pe", dtype="float32", shape=(1, *grid), content="encoding"),
                TensorSpec(
                    name="sparse_prompt_embeddings",
                    dtype="float32",
                    shape=(batch, points, axes.channels),
                    content="embedding",
                ),
                TensorSpec(name="dense_prompt_embeddings", dtype="float32", shape=(batch, *grid), content="embedding"),
            ),
            outputs=axes.outputs("masks", batch),
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in the signature."""
        sparse, dense = sparse_prompt_embeddings.unsqueeze(0), dense_prompt_embeddings.unsqueeze(0)  # (1, B, ...)
        masks, iou = self.decode(image_embeddings, image_pe, sparse, dense)
        return masks.squeeze(0), iou.squeeze(0)


class PromptsGraph(ExportGraph):
    """Prompt encoder and decoder for many prompts of many images, without a mask prompt."""

    one_image = False
    one_mask_embedding = True

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: _Axes) -> None:
        super().__init__(model, options, axes)
        images, prompts = axes.images, axes.prompts
        self.signature = Signature(
            inputs=(axes.image(images), *axes.points_of(images, prompts, labels="int64")),
            outputs=axes.outputs("low_res_masks", images, prompts),
        )

    def forward(self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in the signature."""
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

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: _Axes) -> None:
        super().__init__(model, options, axes)
        images, prompts = self.signature.inputs[1].shape[:2]
        mask = TensorSpec(
            name="mask_input", dtype="float32", shape=(images, prompts, 1, *axes.mask_size), content="logits"
        )
        flag = TensorSpec(name="has_mask_input", dtype="float32", shape=(images, prompts), content="flag")
        self.signature = Signature(inputs=(*self.signature.inputs, mask, flag), outputs=self.signature.outputs)

    def forward(  # type: ignore[override]  # the signature differs on purpose: two inputs more
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in the signature."""
        dense = _embed_mask_input(self.encoder, mask_input.flatten(0, 1), has_mask_input.flatten(0, 1))
        dense = dense.unflatten(0, mask_input.shape[:2])  # (I, P, C, h, w)
        return self.decode_prompts(image_embeddings, point_coords, point_labels, dense)


class MetaGraph(ExportGraph):
    """The contract of segment-anything's own ONNX file, masks resized to the original image.

    Source: segment-anything `utils/onnx.py`. The size is read from `orig_im_size` at run time, so one file serves
    every aspect ratio.
    """

    def __init__(self, model: SamDecoder, options: GraphOptions, axes: _Axes) -> None:
        super().__init__(model, options, axes)
        batch, side = axes.batch(16), IMAGE_STRIDE * axes.grid
        size = tuple(
            axes.dim(name, side // 4, side * 3 // 4, side * 5 // 4) for name in ("image_height", "image_width")
        )
        mask, iou = axes.outputs("low_res_masks", batch)
        self.signature = Signature(
            inputs=(
                axes.image(1),
                *axes.points_of(batch, labels="float32"),
                TensorSpec(name="mask_input", dtype="float32", shape=(batch, 1, *axes.mask_size), content="logits"),
                TensorSpec(name="has_mask_input", dtype="float32", shape=(1,), content="flag"),
                TensorSpec(name="orig_im_size", dtype="float32", shape=(2,), content="image_size", extent=size),
            ),
            outputs=(
                TensorSpec(name="masks", dtype="float32", shape=(*mask.shape[:2], *size), content="masks"),
                iou,
                mask,
            ),
        )

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes as in the signature."""
        height, width = image_embeddings.shape[-2:]
        sparse = self.encoder.embed_points(point_coords, point_labels, height, width).unsqueeze(0)  # (1, B, N, C)
        dense = _embed_mask_input(self.encoder, mask_input, has_mask_input).unsqueeze(0)  # (1, B, C, h, w)
        masks, iou = self.decode(image_embeddings, self.encoder.dense_pe(height, width), sparse, dense)
        low_res = masks.squeeze(0)  # (B, M, 4h, 4w)
        return _to_original_size(low_res, orig_im_size, height, width), iou.squeeze(0), low_res


@dataclass(frozen=True, slots=True)
class _Axes:
    """Axes of the contracts: their usual ranges, unless others were asked for."""

    channels: int
    grid: int
    num_masks: int
    dynamic_grid: bool
    ranges: Mapping[str, Dim]

    def dim(self, name: str, low: int, usual: int, high: int, *, independent: bool = False) -> Dim:
        asked = self.ranges.get(name, Dim(name=name, min=low, opt=usual, max=high))
        return replace(asked, independent=independent)

    def batch(self, most: int) -> Dim:
        return self.dim("batch", 1, 1, most, independent=True)

    @property
    def images(self) -> Dim:
        return self.dim("images", 1, 1, 4, independent=True)

    @property
    def prompts(self) -> Dim:
        return self.dim("prompts", 1, 8, 16, independent=True)

    @property
    def points(self) -> Dim:
        return self.dim("points", 1, 2, 16)

    @property
    def height(self) -> int | Dim:
        return self.dim("height", max(1, self.grid // 4), self.grid, self.grid) if self.dynamic_grid else self.grid

    @property
    def width(self) -> int | Dim:
        return self.dim("width", max(1, self.grid // 4), self.grid, self.grid) if self.dynamic_grid else self.grid

    @property
    def mask_size(self) -> tuple[Axis, Axis]:
        return _times(self.height, MASK_SCALE), _times(self.width, MASK_SCALE)

    def image(self, images: Axis) -> TensorSpec:
        shape = (images, self.channels, self.height, self.width)
        return TensorSpec(name="image_embeddings", dtype="float32", shape=shape, content="embedding")

    def points_of(self, *prompts: Axis, labels: Literal["float32", "int64"]) -> tuple[TensorSpec, TensorSpec]:
        pixels = (_times(self.width, IMAGE_STRIDE), _times(self.height, IMAGE_STRIDE))
        shape = (*prompts, self.points)
        return (
            TensorSpec(name="point_coords", dtype="float32", shape=(*shape, 2), content="coords", extent=pixels),
            TensorSpec(name="point_labels", dtype=labels, shape=shape, content="labels"),
        )

    def outputs(self, masks: str, *prompts: Axis) -> tuple[TensorSpec, TensorSpec]:
        shape = (*prompts, self.num_masks)
        return (
            TensorSpec(name=masks, dtype="float32", shape=(*shape, *self.mask_size), content="masks"),
            TensorSpec(name="iou_predictions", dtype="float32", shape=shape, content="scores"),
        )


def build_graph(model: SamDecoder, grid: int, options: GraphOptions) -> ExportGraph:
    """The graph that `options` ask for, in eval mode.

    Args:
        model: The decoder; shared, not copied.
        grid: Image tokens along one side; with a dynamic grid, the most along each side.
        options: Which graph.

    Raises:
        UsageError: A range is given for an axis that the graph does not have.
    """
    total = model.mask_decoder.num_mask_tokens
    axes = _Axes(
        channels=model.mask_decoder.iou_token.embedding_dim,
        grid=grid,
        num_masks={"multi": total - 1, "single": 1, "all": total, "best": 1}[options.masks_mode],
        dynamic_grid=options.dynamic_grid,
        ranges={axis.name: axis for axis in options.ranges},
    )
    graphs: dict[str, type[DecoderGraph | PromptsGraph | MetaGraph]] = {
        "decoder": DecoderGraph,
        "prompts": MaskPromptsGraph if options.mask_input else PromptsGraph,
        "meta": MetaGraph,
    }
    graph = graphs[options.graph](model, options, axes).eval()
    names = [dim.name for dim in graph.signature.dims]
    if unknown := [name for name in axes.ranges if name not in names]:
        raise UsageError(
            f"The {options.graph} graph has no dynamic axis {unknown[0]!r}.", f"It has {', '.join(names)}."
        )
    return graph


def _times(axis: int | Dim, factor: int) -> Axis:
    return Scaled(axis, factor) if isinstance(axis, Dim) else axis * factor


def _embed_mask_input(encoder: PromptEncoder, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
    """Mask logits (B, 1, 4h, 4w), flags (B,) or (1,) -> (B, C, h, w)."""
    return torch.where(has_mask_input[:, None, None, None] > 0.5, encoder.embed_masks(mask_input), encoder.no_mask())


def _to_original_size(masks: Tensor, orig_im_size: Tensor, height: int, width: int) -> Tensor:
    """Mask logits (B, M, 4h, 4w) -> (B, M, H, W): to the padded image, without its padding, to the original image.

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
    """A length read from an int64 tensor. `item` without `int` keeps it symbolic for torch.export."""
    length = value.item()
    torch._check(length >= 1)
    torch._check(length <= limit)
    return cast(int, length)
