"""Export a checkpoint's decoder as segment-anything's own script does, in that package's own environment.

python export_segment_anything.py CHECKPOINT OUT.onnx

The steps and arguments are those of its scripts/export_onnx_model.py, which the wheel leaves out.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import torch
import upstream

checkpoint, out = sys.argv[1:]
sam = upstream.build_sam("vit_b")
sam.load_state_dict(torch.load(checkpoint, weights_only=True))
wrapper = upstream.segment_anything("utils.onnx").SamOnnxModel(sam, return_single_mask=False)
inputs = {
    "image_embeddings": torch.randn(1, 256, 64, 64),
    "point_coords": 1024 * torch.rand(1, 5, 2),
    "point_labels": torch.randint(0, 4, (1, 5)).float(),
    "mask_input": torch.randn(1, 1, 256, 256),
    "has_mask_input": torch.ones(1),
    "orig_im_size": torch.tensor([1024.0, 1024.0]),
}
torch.onnx.export(
    wrapper,
    tuple(inputs.values()),
    out,
    input_names=list(inputs),
    output_names=["masks", "iou_predictions", "low_res_masks"],
    dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
    opset_version=17,
    dynamo=False,
)
