"""How different libraries name the same tensors: rename tables, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

__all__ = ["LAYOUTS", "Layout", "find_layout", "nearest_family"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A library's naming of the tensors.

    The first pattern of `renames` that a name begins with makes segment-anything's name of it; names that none matches
    stay as they are. `duplicates` repeat another tensor, and are left out.
    """

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    duplicates: frozenset[str] = frozenset()

    def upstream_names(self, names: Iterable[str]) -> dict[str, str]:
        """Return segment-anything's name -> the name in the file."""
        return {self._upstream(name): name for name in names if name not in self.duplicates}

    def _upstream(self, name: str) -> str:
        for pattern, replacement in self.renames:
            renamed, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                return renamed
        return name


HEADS: Final = r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\."
POSITIONS: Final = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

HUGGING_FACE: Final = Layout(
    name="huggingface",
    renames=(
        (r"shared_image_embedding\.positional_embedding", POSITIONS),
        (r"prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
        (r"prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
        (r"prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
        (r"prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
        (r"prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
        (r"prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
        (r"mask_decoder\.transformer\.layers\.(\d+)\.layer_norm(\d)\.", r"mask_decoder.transformer.layers.\1.norm\2."),
        (r"mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
        (r"mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
        (r"mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
        (r"mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
        (rf"{HEADS}proj_in\.", r"mask_decoder.\1.layers.0."),
        (rf"{HEADS}layers\.0\.", r"mask_decoder.\1.layers.1."),
        (rf"{HEADS}proj_out\.", r"mask_decoder.\1.layers.2."),
        (r"vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
        (r"vision_encoder\.", "image_encoder."),
    ),
    duplicates=frozenset({"prompt_encoder.shared_embedding.positional_embedding"}),
)

LAYOUTS: Final = (Layout(name="segment-anything"), HUGGING_FACE)

RELATIVES: Final = (
    (r"(^|\.)sam_(mask_decoder|prompt_encoder)\.", "This looks like SAM 2, which is another architecture."),
    (
        r"(^|\.)(module|model|sam|_orig_mod)\.mask_decoder\.",
        "This looks like SAM behind a prefix: save the inner model.",
    ),
    (r"^vision_encoder\.", "This looks like the image encoder of a Hugging Face SamModel: the decoder is needed."),
    (r"^image_encoder\.", "This looks like the image encoder of SAM: the decoder is needed too."),
)
"""Names that give a near relative away, and what to say about it."""


def find_layout(names: Iterable[str], expected: Set[str]) -> Layout | None:
    """Return the layout under which most of `names` are `expected` tensors, or None if none is in any."""
    names = tuple(names)
    hits = {layout: len(layout.upstream_names(names).keys() & expected) for layout in LAYOUTS}
    best = max(LAYOUTS, key=hits.__getitem__)
    return best if hits[best] else None


def nearest_family(names: Iterable[str]) -> str:
    """Return a sentence that says which known family a foreign file is nearest to."""
    names = tuple(names)
    for pattern, sentence in RELATIVES:
        if any(re.search(pattern, name) for name in names):
            return sentence
    return "It resembles no family known here."
