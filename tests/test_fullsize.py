"""A full-size checkpoint, saved by segment-anything's own classes, through the whole flow."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import upstream
from transformers import SamConfig, SamModel, SamVisionConfig

from samdec_export.backends.ort import OrtRunner
from samdec_export.models.checkpoint import load_model
from samdec_export.validation.metrics import mask_metrics, tensor_metrics

PEAK_MEMORY = 1.5e9
CHUNK = 8


@pytest.fixture(scope="module")
def sam() -> Any:
    return upstream.build_sam("vit_b")


@pytest.fixture(scope="module")
def folder(sam: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("full")
    torch.save(sam.state_dict(), folder / "sam_b.pt")
    yield folder
    for file in folder.glob("*.pt"):
        file.unlink()  # 375 MB each


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """The command exactly as the README writes it, in a folder with the checkpoint, and its peak memory checked."""
    done = subprocess.run(
        [sys.executable, "-m", "samdec_export", "onnx", "--ckpt", "sam_b.pt"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout
    return folder / "artifacts" / "sam_b.decoder.onnx"


def test_peak_memory_stays_small(exported: Path) -> None:
    assert exported.exists()
    assert 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < PEAK_MEMORY


@pytest.mark.parametrize("points", [1, 2, 17])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_onnx_equals_segment_anythings_decoder(sam: Any, exported: Path, batch: int, points: int) -> None:
    generator = torch.Generator().manual_seed(100 * batch + points)
    image = torch.randn(1, 256, 64, 64, generator=generator)
    coords = 1024 * torch.rand(batch, points, 2, generator=generator)
    labels = torch.randint(0, 2, (batch, points), generator=generator)
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(points=(coords, labels), boxes=None, masks=None)
        sparse = sparse[:, :points]  # without the padding that it adds: the counts asked for
        pe = sam.prompt_encoder.get_dense_pe()
        parts = [
            sam.mask_decoder(image, pe, sparse[i : i + CHUNK], dense[i : i + CHUNK], multimask_output=True)
            for i in range(0, batch, CHUNK)
        ]
    feeds = {
        "image_embeddings": image.numpy(),
        "image_pe": pe.numpy(),
        "sparse_prompt_embeddings": sparse.numpy(),
        "dense_prompt_embeddings": dense.contiguous().numpy(),
    }
    outputs = OrtRunner(exported).run(feeds)
    for name, index in (("masks", 0), ("iou_predictions", 1)):
        expected = torch.cat([part[index] for part in parts]).numpy()
        found = tensor_metrics(expected, outputs[name])
        assert found.max_abs <= 1e-4
        assert found.max_abs <= 1e-5 * np.ptp(expected)
        if name == "masks":
            assert mask_metrics(expected, outputs[name]).iou_min >= 0.9999


def test_three_libraries_files_give_bit_identical_decoders(sam: Any, folder: Path, tmp_path: Path) -> None:
    weights = sam.state_dict()
    torch.save({"model": weights}, folder / "ultralytics.pt")
    huggingface_model(sam).save_pretrained(tmp_path / "hf")
    paths = (folder / "sam_b.pt", folder / "ultralytics.pt", tmp_path / "hf", tmp_path / "hf" / "model.safetensors")
    loaded = [load_model(path) for path in paths]
    assert {model.spec.name for model in loaded} == {"sam_b"}
    assert len({model.checkpoint.weights_sha256 for model in loaded}) == 1
    for model in loaded:
        for name, tensor in model.decoder.state_dict().items():
            assert torch.equal(tensor, weights[name])


def huggingface_model(sam: Any) -> Any:
    """A transformers SamModel with segment-anything's weights, moved module by module."""
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
