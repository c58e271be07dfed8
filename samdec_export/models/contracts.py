"""What the exported graphs take and return, without torch: axes, and a signature for each module of `sam/graphs.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from samdec_export.core.errors import UsageError
from samdec_export.core.options import GraphName, GraphOptions, MasksMode
from samdec_export.core.signature import Axis, Content, Dim, DType, Scaled, Signature, TensorSpec

__all__ = ["CONTRACTS", "IMAGE_STRIDE", "Axes", "contract"]

IMAGE_STRIDE: Final = 16
"""Input-image pixels along one side of an image token: the patch size of every published SAM image encoder."""

MASK_SCALE: Final = 4
"""Mask pixels along one side of an image token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Axes of the contracts: their usual ranges, unless `options` ask for others.

    `grid` is the number of image tokens along one side, or the most along each with a dynamic grid.
    """

    options: GraphOptions
    channels: int
    grid: int
    mask_tokens: int

    @property
    def num_masks(self) -> int:
        """Return how many masks a prompt gets."""
        counts: dict[MasksMode, int] = {"multi": self.mask_tokens - 1, "single": 1, "all": self.mask_tokens, "best": 1}
        return counts[self.options.masks_mode]

    def dim(self, name: str, low: int, usual: int, high: int, *, independent: bool = False) -> Dim:
        """Return a dynamic axis: in the range asked for, or else in this one."""
        ranges = {axis.name: axis for axis in self.options.ranges}
        return replace(ranges.get(name, Dim(name=name, min=low, opt=usual, max=high)), independent=independent)

    def batch(self, most: int) -> Dim:
        """Return the axis of prompts of one image."""
        return self.dim("batch", 1, 1, most, independent=True)

    @property
    def images(self) -> Dim:
        return self.dim("images", 1, 1, 4, independent=True)

    @property
    def prompts(self) -> Dim:
        """Return the axis of prompts of each image."""
        return self.dim("prompts", 1, 8, 16, independent=True)

    @property
    def points(self) -> Dim:
        """Return the axis of points of a prompt."""
        return self.dim("points", 1, 2, 16)

    def side(self, name: str, factor: int = 1) -> Axis:
        """Return `height` or `width`: so many times the image tokens along it."""
        if not self.options.dynamic_grid:
            return self.grid * factor
        dim = self.dim(name, max(1, self.grid // 4), self.grid, self.grid)
        return dim if factor == 1 else Scaled(dim, factor)

    @property
    def tokens(self) -> tuple[Axis, Axis, Axis]:
        """Return channels, height and width of an image embedding."""
        return self.channels, self.side("height"), self.side("width")

    @property
    def mask_size(self) -> tuple[Axis, Axis]:
        """Return height and width of a mask as the decoder predicts it."""
        return self.side("height", MASK_SCALE), self.side("width", MASK_SCALE)

    @property
    def image_size(self) -> tuple[Axis, Axis]:
        """Return width and height of the model's input picture in pixels, in the order of a point's coordinates."""
        return self.side("width", IMAGE_STRIDE), self.side("height", IMAGE_STRIDE)


def _float(name: str, content: Content, *shape: Axis, extent: tuple[Axis, ...] = ()) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, content=content, extent=extent)


def _points(axes: Axes, *prompts: Axis, labels: DType) -> tuple[TensorSpec, TensorSpec]:
    shape = (*prompts, axes.points)
    return (
        _float("point_coords", "coords", *shape, 2, extent=axes.image_size),
        TensorSpec(name="point_labels", dtype=labels, shape=shape, content="labels"),
    )


def _outputs(axes: Axes, masks: str, *prompts: Axis) -> tuple[TensorSpec, TensorSpec]:
    shape = (*prompts, axes.num_masks)
    return _float(masks, "masks", *shape, *axes.mask_size), _float("iou_predictions", "scores", *shape)


def _decoder(axes: Axes, options: GraphOptions) -> Signature:
    """Return the signature of the mask decoder's own `forward`."""
    batch = axes.batch(64)
    return Signature(
        inputs=(
            _float("image_embeddings", "embedding", 1, *axes.tokens),
            _float("image_pe", "encoding", 1, *axes.tokens),
            _float("sparse_prompt_embeddings", "embedding", batch, axes.points, axes.channels),
            _float("dense_prompt_embeddings", "embedding", batch, *axes.tokens),
        ),
        outputs=_outputs(axes, "masks", batch),
    )


def _prompts(axes: Axes, options: GraphOptions) -> Signature:
    """Return the signature for many prompts of many images, each with a mask of an earlier round if asked for."""
    images, prompts = axes.images, axes.prompts
    inputs = (
        _float("image_embeddings", "embedding", images, *axes.tokens),
        *_points(axes, images, prompts, labels="int64"),
    )
    masks = (
        _float("mask_input", "logits", images, prompts, 1, *axes.mask_size),
        _float("has_mask_input", "flag", images, prompts),
    )
    return Signature(
        inputs=(*inputs, *(masks if options.mask_input else ())),
        outputs=_outputs(axes, "low_res_masks", images, prompts),
    )


def _meta(axes: Axes, options: GraphOptions) -> Signature:
    """Return the signature of segment-anything's own ONNX file (its `utils/onnx.py`)."""
    batch, side = axes.batch(16), IMAGE_STRIDE * axes.grid
    size = tuple(axes.dim(name, side // 4, side * 3 // 4, side * 5 // 4) for name in ("image_height", "image_width"))
    low_res, iou = _outputs(axes, "low_res_masks", batch)
    return Signature(
        inputs=(
            _float("image_embeddings", "embedding", 1, *axes.tokens),
            *_points(axes, batch, labels="float32"),
            _float("mask_input", "logits", batch, 1, *axes.mask_size),
            _float("has_mask_input", "flag", 1),
            _float("orig_im_size", "image_size", 2, extent=size),
        ),
        outputs=(_float("masks", "masks", batch, axes.num_masks, *size), iou, low_res),
    )


CONTRACTS: Final[dict[GraphName, Callable[[Axes, GraphOptions], Signature]]] = {
    "decoder": _decoder,
    "prompts": _prompts,
    "meta": _meta,
}


def contract(axes: Axes, options: GraphOptions) -> Signature:
    """Return what the graph that `options` ask for takes and returns.

    Raises:
        UsageError: A range is given for an axis that the graph does not have.
    """
    signature = CONTRACTS[options.graph](axes, options)
    names = [dim.name for dim in signature.dims]
    if unknown := [axis.name for axis in options.ranges if axis.name not in names]:
        raise UsageError(
            f"The {options.graph} graph has no dynamic axis {unknown[0]!r}.", f"It has {', '.join(names)}."
        )
    return signature
