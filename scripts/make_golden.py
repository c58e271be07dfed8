"""Make tests/golden/*.npz with upstream's own code, at sam_tiny's size.

Run it in the test environment, from anywhere: python scripts/make_golden.py

Two independent sources: segment-anything's classes with this project's seeded weights, and transformers' SamModel
with weights of its own (kept in the file, under its own names). What is stored is inputs and outputs, never anything
that this project computed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import upstream  # noqa: E402  # the path is set above

from samdec_export.models.checkpoint import load_model  # noqa: E402  # the same

GRID, CHANNELS = 8, 32
SIDE = 16 * GRID
SIZES = ((150, 220), (333, 210))
"""Original images, height and width: landscape and portrait."""


def main() -> None:
    """Write both files."""
    folder = ROOT / "tests" / "golden"
    folder.mkdir(exist_ok=True)
    for name, arrays in (("segment_anything", segment_anything()), ("huggingface", huggingface())):
        np.savez_compressed(folder / f"{name}.npz", **arrays)
        print(f"{name}.npz: {len(arrays)} arrays, {(folder / f'{name}.npz').stat().st_size / 1e3:.0f} kB")


def prompts() -> dict[str, Any]:
    """Three prompts of three points: clicks, a box with a click, a click with padding."""
    rng = np.random.default_rng(7)
    coords = rng.uniform(0, SIDE, (3, 3, 2)).astype(np.float32)
    coords[1, :2] = [[10, 20], [90, 70]]
    labels = np.array([[1, 0, 1], [2, 3, 1], [1, -1, -1]], np.float32)
    return {
        "image_embeddings": rng.standard_normal((1, CHANNELS, GRID, GRID)).astype(np.float32),
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": (5 * rng.standard_normal((3, 1, 4 * GRID, 4 * GRID))).astype(np.float32),
    }


@torch.no_grad()
def segment_anything() -> dict[str, Any]:
    """segment-anything's MaskDecoder, PromptEncoder and ONNX wrapper, in eager mode."""
    prompt_encoder, mask_decoder = upstream.build_tiny()
    weights = load_model(None, "sam_tiny").decoder.state_dict()
    parts = torch.nn.ModuleDict({"prompt_encoder": prompt_encoder, "mask_decoder": mask_decoder})
    parts.load_state_dict(weights, strict=True)
    inputs = prompts()
    image, coords, labels, mask = (torch.from_numpy(array) for array in inputs.values())

    wrapper_class = upstream.segment_anything("utils.onnx").SamOnnxModel
    sam = SimpleNamespace(
        mask_decoder=mask_decoder, prompt_encoder=prompt_encoder, image_encoder=SimpleNamespace(img_size=SIDE)
    )
    wrapper = wrapper_class(sam, return_single_mask=False)
    arrays = dict(inputs)
    sparse = wrapper._embed_points(coords, labels)
    dense = prompt_encoder(points=None, boxes=None, masks=mask)[1]
    arrays["sparse"], arrays["dense"] = sparse.numpy(), dense.numpy()
    arrays["image_pe"] = prompt_encoder.get_dense_pe().numpy()
    for multimask in (True, False):
        masks, iou = mask_decoder(image, prompt_encoder.get_dense_pe(), sparse, dense, multimask)
        key = "multi" if multimask else "single"
        arrays[f"{key}_masks"], arrays[f"{key}_iou"] = masks.numpy(), iou.numpy()
    for single in (False, True):
        wrapper.return_single_mask = single
        for has_mask in (0.0, 1.0):
            for size in SIZES:
                key = f"meta_{'best' if single else 'all'}_{int(has_mask)}_{size[0]}x{size[1]}"
                flag, original = torch.tensor([has_mask]), torch.tensor(size, dtype=torch.float32)
                outputs = wrapper(image, coords, labels, mask, flag, original)
                # Every seventh pixel each way: enough to catch any shift or scale, a fiftieth of the size.
                arrays[f"{key}_masks"] = outputs[0][..., ::7, ::7].numpy()
                arrays[f"{key}_iou"], arrays[f"{key}_low_res"] = outputs[1].numpy(), outputs[2].numpy()
    boxes = torch.tensor([[10.0, 20, 90, 70]] * 3)
    arrays["boxes_sparse"] = prompt_encoder(points=None, boxes=boxes, masks=None)[0].numpy()
    return arrays


@torch.no_grad()
def huggingface() -> dict[str, Any]:
    """A transformers SamModel, all but its image encoder, with its weights under its own names."""
    torch.manual_seed(3)
    model = SamModel(huggingface_config()).eval()
    for name, tensor in model.state_dict().items():
        if "norm" in name or name.endswith("bias"):
            tensor.add_(0.1 * torch.randn_like(tensor))
    inputs = prompts()
    labels = np.where(inputs["point_labels"] > 1, 1, inputs["point_labels"]).astype(np.int64)
    # Its label -10 is the padding that upstream calls -1, and its points come with padding of their own.
    outputs = model(
        image_embeddings=torch.from_numpy(inputs["image_embeddings"]),
        input_points=torch.from_numpy(inputs["point_coords"])[None],
        input_labels=torch.from_numpy(labels)[None],
        multimask_output=True,
    )
    weights = {f"weights/{k}": v.numpy() for k, v in model.state_dict().items() if not k.startswith("vision")}
    weights["weights/vision_encoder.pos_embed"] = model.state_dict()["vision_encoder.pos_embed"].numpy()
    return {
        "image_embeddings": inputs["image_embeddings"],
        "point_coords": inputs["point_coords"],
        "point_labels": labels,
        "masks": outputs.pred_masks.numpy(),
        "iou": outputs.iou_scores.numpy(),
        **weights,
    }


def huggingface_config() -> Any:
    """A SamModel of sam_tiny's size."""
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            output_channels=CHANNELS,
            image_size=SIDE,
            window_size=0,
            global_attn_indexes=[0],
            num_pos_feats=CHANNELS // 2,
            mlp_dim=16,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=CHANNELS, image_size=SIDE, patch_size=16),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=CHANNELS, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=CHANNELS
        ),
    )


if __name__ == "__main__":
    main()
