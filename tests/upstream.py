"""Segment-anything's own classes: the independent reference.

The package's `__init__` imports torchvision, which nothing used here needs; its subpackages are imported past it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import partial
from types import ModuleType
from typing import Any

import torch

IMAGE_ENCODERS = {
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


def segment_anything(module: str) -> Any:
    """Import `segment_anything.<module>` without running the package's `__init__`."""
    name = "segment_anything"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        package = ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[name] = package
    return importlib.import_module(f"{name}.{module}")


def build_sam(encoder: str, seed: int = 0) -> Any:
    """A whole `Sam` as `build_sam.py` makes it, with seeded weights."""
    modeling = segment_anything("modeling")
    torch.manual_seed(seed)
    sizes = IMAGE_ENCODERS[encoder]
    image_encoder = modeling.ImageEncoderViT(
        img_size=1024,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=[],
        window_size=14,
        out_chans=256,
        **sizes,
    )
    return modeling.Sam(image_encoder=image_encoder, **_decoder_parts()).eval().requires_grad_(False)


def build_tiny(grid: int = 8, channels: int = 32, heads: int = 4, mlp_dim: int = 64) -> tuple[Any, Any]:
    """A prompt encoder and a mask decoder of `sam_tiny`'s size."""
    parts = _decoder_parts(grid, channels, heads, mlp_dim, iou_hidden=channels)
    return parts["prompt_encoder"].eval(), parts["mask_decoder"].eval()


def _decoder_parts(
    grid: int = 64, channels: int = 256, heads: int = 8, mlp_dim: int = 2048, iou_hidden: int = 256
) -> dict[str, Any]:
    modeling = segment_anything("modeling")
    return {
        "prompt_encoder": modeling.PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(16 * grid, 16 * grid),
            mask_in_chans=16,
        ),
        "mask_decoder": modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=mlp_dim, num_heads=heads),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=iou_hidden,
        ),
    }


def huggingface_model(sam: Any) -> Any:
    """A transformers SamModel with segment-anything's weights, moved module by module."""
    from transformers import SamConfig, SamModel, SamVisionConfig  # an environment of a benchmark's peer lacks it

    # A ViT-B's width with one layer: what follows it does not depend on the layers.
    vision = SamVisionConfig(num_hidden_layers=1, global_attn_indexes=[0])
    model = SamModel(SamConfig(vision_config=vision)).eval()
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    source_prompt, source = sam.prompt_encoder, sam.mask_decoder
    frequencies = source_prompt.pe_layer.positional_encoding_gaussian_matrix
    model.shared_image_embedding.positional_embedding.data.copy_(frequencies)
    prompt.shared_embedding.positional_embedding.data.copy_(frequencies)
    down = source_prompt.mask_downscaling
    pairs = [
        (prompt.mask_embed.conv1, down[0]),
        (prompt.mask_embed.layer_norm1, down[1]),
        (prompt.mask_embed.conv2, down[3]),
        (prompt.mask_embed.layer_norm2, down[4]),
        (prompt.mask_embed.conv3, down[6]),
        (prompt.no_mask_embed, source_prompt.no_mask_embed),
        (prompt.not_a_point_embed, source_prompt.not_a_point_embed),
        *zip(prompt.point_embed, source_prompt.point_embeddings, strict=True),
        (decoder.iou_token, source.iou_token),
        (decoder.mask_tokens, source.mask_tokens),
        (decoder.upscale_conv1, source.output_upscaling[0]),
        (decoder.upscale_layer_norm, source.output_upscaling[1]),
        (decoder.upscale_conv2, source.output_upscaling[3]),
        (decoder.transformer.final_attn_token_to_image, source.transformer.final_attn_token_to_image),
        (decoder.transformer.layer_norm_final_attn, source.transformer.norm_final_attn),
    ]
    for ours, theirs in zip(decoder.transformer.layers, source.transformer.layers, strict=True):
        pairs += [(getattr(ours, f"layer_norm{i}"), getattr(theirs, f"norm{i}")) for i in (1, 2, 3, 4)]
        names = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token", "mlp")
        pairs += [(getattr(ours, name), getattr(theirs, name)) for name in names]
    mlps = zip(decoder.output_hypernetworks_mlps, source.output_hypernetworks_mlps, strict=True)
    for ours, theirs in (*mlps, (decoder.iou_prediction_head, source.iou_prediction_head)):
        pairs += [
            (ours.proj_in, theirs.layers[0]),
            (ours.layers[0], theirs.layers[1]),
            (ours.proj_out, theirs.layers[2]),
        ]
    for target, origin in pairs:
        target.load_state_dict(origin.state_dict(), strict=True)
    return model
