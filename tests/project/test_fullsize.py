"""A full-size checkpoint, saved by segment-anything's own classes, through the whole flow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import upstream
from numpy.typing import NDArray

from samdec_export import api
from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.drawing import Case
from samdec_export.core.feeds import make_feeds
from samdec_export.core.options import GraphOptions, parse_range
from samdec_export.models.checkpoint import load_model
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.metrics import mask_metrics, tensor_metrics
from samdec_export.precision.options import Conversion

Arrays = dict[str, NDArray[Any]]

META_RANGES = ("batch=1:1:1", "points=2:2:2", "image_height=256:1280:1280", "image_width=256:1280:1280")

LAUNCHER = """
import os, pathlib, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
pathlib.Path(sys.argv[1]).write_text(str(usage.ru_maxrss))
process.returncode = os.waitstatus_to_exitcode(status)
sys.exit(process.returncode)
"""
"""A process starts with its parent's peak: a small parent, and not the suite, tells what the command itself takes."""

PEAK_MEMORY = 1.5e9
DISTINCT = 8
"""Prompts that segment-anything's own decoder answers at once, in a gigabyte."""


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
def export_run(folder: Path) -> tuple[int, str, int]:
    """The command exactly as the README writes it, in the checkpoint's folder: exit code, output, peak bytes."""
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "samdec_export", "onnx", "--ckpt", "sam_b.pt"]
        launch = [sys.executable, "-c", LAUNCHER, "peak.txt", *command]
        done = subprocess.run(launch, cwd=folder, stdout=log, stderr=log, check=False)
    return done.returncode, (folder / "log.txt").read_text(), 1024 * int((folder / "peak.txt").read_text())


@pytest.fixture(scope="module")
def exported(folder: Path, export_run: tuple[int, str, int]) -> Path:
    code, output, _ = export_run
    assert code == 0, output
    assert "0 failed" in output
    return folder / "artifacts" / "sam_b.decoder.onnx"


def test_peak_memory_stays_small(export_run: tuple[int, str, int]) -> None:
    assert 1e8 < export_run[2] < PEAK_MEMORY


@pytest.mark.parametrize("points", [1, 2, 17])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_onnx_equals_segment_anythings_decoder(sam: Any, exported: Path, batch: int, points: int) -> None:
    """The file runs every prompt; of 64, eight are distinct, in a drawn order, and theirs, the slow one, runs those.

    A file that mixed two prompts would mix distinct ones.
    """
    generator = torch.Generator().manual_seed(100 * batch + points)
    distinct = min(batch, DISTINCT)
    order = torch.arange(batch) if batch == distinct else torch.randint(0, distinct, (batch,), generator=generator)
    image = torch.randn(1, 256, 64, 64, generator=generator)
    coords = 1024 * torch.rand(distinct, points, 2, generator=generator)
    labels = torch.randint(0, 2, (distinct, points), generator=generator)
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(points=(coords, labels), boxes=None, masks=None)
        sparse = sparse[:, :points]  # without the padding that it adds: the counts asked for
        pe = sam.prompt_encoder.get_dense_pe()
        answers = sam.mask_decoder(image, pe, sparse, dense, multimask_output=True)
    feeds = {
        "image_embeddings": image.numpy(),
        "image_pe": pe.numpy(),
        "sparse_prompt_embeddings": sparse[order].numpy(),
        "dense_prompt_embeddings": dense[order].numpy(),
    }
    outputs = OrtRunner(exported).run(feeds)
    for name, index in (("masks", 0), ("iou_predictions", 1)):
        expected = answers[index][order].numpy()
        found = tensor_metrics(expected, outputs[name])
        assert found.max_abs is not None
        assert found.max_abs <= 1e-4
        assert found.max_abs <= 1e-5 * np.ptp(expected)
        if name == "masks":
            assert mask_metrics(expected, outputs[name]).iou_min >= 0.9999


@pytest.fixture(scope="module")
def meta(folder: Path) -> api.Exported:
    """The meta file in full size, validated at the ends of its image sizes.

    Every corner of the usual ranges is run on sam_tiny (test_export); what a full size adds is the size of masks.
    """
    ranges = tuple(parse_range(text) for text in META_RANGES)
    return api.export(folder / "sam_b.pt", options=GraphOptions(graph="meta", ranges=ranges), out=folder / "meta")


def test_resized_masks_pass_their_own_validation(meta: api.Exported) -> None:
    assert meta.validated is not None
    meta.validated.require()
    floor = meta.validated.result.floors["masks"]
    assert 2.5e-6 < floor.relative < 5e-5, "the larger an image, the worse eager fp32 places its pixels"


@pytest.mark.parametrize("has_mask", [0, 1])
@pytest.mark.parametrize("size", [(1080, 1920), (1200, 800)])
def test_meta_equals_segment_anythings_wrapper(
    sam: Any, meta: api.Exported, size: tuple[int, int], has_mask: int
) -> None:
    rng = np.random.default_rng(size)
    labels = np.array([[1, 0, -1], [2, 3, 1]], np.float32)
    feeds: Arrays = {
        "image_embeddings": rng.standard_normal((1, 256, 64, 64)),
        "point_coords": np.sort(rng.uniform(0, 1024, (2, 3, 2)), axis=1),
        "point_labels": labels,
        "mask_input": 10 * rng.standard_normal((2, 1, 256, 256)),
        "has_mask_input": np.array([has_mask]),
        "orig_im_size": np.array(size),
    }
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    wrapper = upstream.segment_anything("utils.onnx").SamOnnxModel(sam, return_single_mask=False)
    with torch.inference_mode():
        _, iou, low_res = wrapper(*(torch.from_numpy(array) for array in feeds.values()))
        # In float64: in float32 it places pixels up to 1e-5 of the span off.
        masks = wrapper.mask_postprocessing(low_res.double(), torch.tensor(size))
    outputs = OrtRunner(meta.artifact.path).run(feeds)
    for expected, actual in zip((masks, iou, low_res), outputs.values(), strict=True):
        assert actual.shape == expected.shape
        assert np.abs(actual - expected.numpy()).max() <= 1e-5 * max(1, np.ptp(expected.numpy()))


def heavy_tailed(path: Path, target: Path) -> Path:
    """A checkpoint whose matrices follow Student's t with three degrees of freedom, each as wide as it was."""
    weights = torch.load(path, weights_only=True)
    random = np.random.RandomState(0)
    for name, tensor in sorted(weights.items()):
        if tensor.dim() > 1 and name.startswith("mask_decoder") and "token" not in name:
            noise = torch.from_numpy(random.standard_t(3, tuple(tensor.shape))).float()
            weights[name] = noise * (tensor.std() / noise.std())
    torch.save(weights, target)
    return target


@pytest.mark.parametrize("weights", ["seeded", "heavy-tailed"])
def test_fp16_loses_no_more_than_torch_half(folder: Path, exported: Path, tmp_path: Path, weights: str) -> None:
    """Ranges are measured on the case that is compared; four prompts have 786,432 mask pixels, of which 250 flip."""
    checkpoint = folder / "sam_b.pt"
    if weights == "heavy-tailed":
        checkpoint = heavy_tailed(checkpoint, tmp_path / "sam_b.pt")
        exported = api.export(checkpoint, out=tmp_path, validate=False).artifact.path
    loaded = load_model(checkpoint)
    graph = build_graph(loaded.decoder, loaded.grid, GraphOptions(arrangement="reference"))
    feeds = make_feeds(graph.signature, Case(sizes={"batch": 4, "points": 2}))
    np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]  # savez has an option of its own
    wanted = Conversion(precision="fp16")
    done = api.convert(
        exported, wanted, checkpoint, out=tmp_path / "fp16", feeds=tmp_path / "feeds.npz", validate=False
    )
    assert done.artifact.path.stat().st_size < 0.55 * exported.stat().st_size
    assert done.file.shares["float16"] > 0.95
    truth = EagerRunner(graph, graph.signature).run(feeds)
    ours = OracleRunner(done.artifact.path).run(feeds)
    half = EagerRunner(graph, graph.signature, precision="fp16").run(feeds)
    pairs = [(mask_metrics(truth["masks"], outputs["masks"]), outputs["iou_predictions"]) for outputs in (ours, half)]
    (own, own_scores), (other, other_scores) = pairs
    assert 0 < own.flipped <= 1.1 * other.flipped
    assert 1 - own.iou_mean <= 1.1 * (1 - other.iou_mean)
    errors = [np.abs(scores - truth["iou_predictions"]).mean() for scores in (own_scores, other_scores)]
    assert errors[0] <= 1.1 * errors[1]
    (tmp_path / "sam_b.pt").unlink(missing_ok=True)  # 375 MB


def test_three_libraries_files_give_bit_identical_decoders(sam: Any, folder: Path, tmp_path: Path) -> None:
    weights = sam.state_dict()
    torch.save({"model": weights}, folder / "ultralytics.pt")
    upstream.huggingface_model(sam).save_pretrained(tmp_path / "hf")
    paths = (folder / "sam_b.pt", folder / "ultralytics.pt", tmp_path / "hf", tmp_path / "hf" / "model.safetensors")
    loaded = [load_model(path) for path in paths]
    assert {model.spec.name for model in loaded} == {"sam_b"}
    assert len({model.checkpoint.weights_sha256 for model in loaded}) == 1
    for model in loaded:
        for name, tensor in model.decoder.state_dict().items():
            assert torch.equal(tensor, weights[name])
