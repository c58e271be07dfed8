"""MODELS: one literal table, a row per variant."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Final

from samdec_export.core.errors import UsageError

__all__ = ["EMBEDDED", "MODELS", "Architecture", "Encoder", "ModelSpec", "find_model", "list_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of a prompt encoder and mask decoder.

    `grid` is the side of the square of image tokens that the image encoder was trained for, and `num_multimask_outputs`
    the masks of an ambiguous prompt; one more is for an unambiguous one. Defaults: segment-anything `build_sam.py`.
    """

    embed_dim: int = 256
    grid: int = 64
    depth: int = 2
    num_heads: int = 8
    mlp_dim: int = 2048
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    mask_in_chans: int = 16


@dataclass(frozen=True, slots=True)
class Encoder:
    """What distinguishes an image encoder: a tensor's name in a segment-anything file, and its shape."""

    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A row of MODELS: `weights` is a file beside this one, for an embedded model; no `encoder`: they are seeded."""

    name: str
    alias: str | None = None
    title: str
    architecture: Architecture
    encoder: Encoder | None = None
    weights: str | None = None

    @property
    def needs_checkpoint(self) -> bool:
        """Return whether one has to be named: no weights are embedded or seeded."""
        return self.encoder is not None and self.weights is None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON."""
        shown = ("name", "alias", "title", "needs_checkpoint")
        return {**{name: getattr(self, name) for name in shown}, "architecture": asdict(self.architecture)}


SAM: Final = Architecture()
TINY: Final = Architecture(embed_dim=32, grid=8, num_heads=4, mlp_dim=64, iou_head_hidden_dim=32)
TOY: Final = Architecture(embed_dim=64, grid=16, num_heads=4, mlp_dim=128, iou_head_hidden_dim=64)


def _vit(width: int, patch: int = 16) -> Encoder:
    return Encoder("image_encoder.patch_embed.proj.weight", (width, 3, patch, patch))


MODELS: Final[dict[str, ModelSpec]] = {
    spec.name: spec
    for spec in (
        ModelSpec(name="sam_b", alias="vit_b", title="Segment Anything, ViT-B", architecture=SAM, encoder=_vit(768)),
        ModelSpec(name="sam_l", alias="vit_l", title="Segment Anything, ViT-L", architecture=SAM, encoder=_vit(1024)),
        ModelSpec(name="sam_h", alias="vit_h", title="Segment Anything, ViT-H", architecture=SAM, encoder=_vit(1280)),
        ModelSpec(
            name="mobile_sam",
            alias="vit_t",
            title="MobileSAM, TinyViT",
            architecture=SAM,
            encoder=Encoder("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3)),
        ),
        ModelSpec(
            name="sam_toy",
            title="64 channels, 16x16 grid, trained on drawn shapes: embedded",
            architecture=TOY,
            encoder=_vit(32, patch=4),
            weights="sam_toy.safetensors",
        ),
        ModelSpec(name="sam_tiny", title="32 channels, 8x8 grid, seeded weights: needs no file", architecture=TINY),
    )
}

EMBEDDED: Final = "sam_toy"
"""The model that stands in where neither a checkpoint nor a model is named."""


def find_model(name: str) -> ModelSpec:
    """Return the row called `name` or aliased so.

    Raises:
        UsageError: There is none; the nearest name is offered.
    """
    by_name = {**MODELS, **{spec.alias: spec for spec in MODELS.values() if spec.alias}}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    raise UsageError(
        f"There is no model called {name!r}.", f"Did you mean {near[0]}?" if near else f"Known: {', '.join(by_name)}."
    )


def list_models() -> list[ModelSpec]:
    """Return the models that can be exported."""
    return list(MODELS.values())
