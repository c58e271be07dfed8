"""The embedded model's masks mean something, its weights are those that training writes, and the demo runs on it."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import demo
import numpy as np
import pytest
import torch
import train_toy
from numpy.typing import NDArray
from toy.network import WEIGHTS, embed, load
from toy.pictures import SIDE, Array, box, clicks, correction, draw
from toy.scoring import Decode, enlarge, held_out, score

from samdec_export import api
from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.options import GraphOptions
from samdec_export.core.runner import Runner
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.models.sam.decoder import SamDecoder
from samdec_export.models.sam.graphs import build_graph

OPTIONS = GraphOptions(graph="prompts")

FLOORS = {"one click": 0.75, "box": 0.78}
"""Mean IoU on the first held-out pictures; docs/toy.md has what was measured on many."""

PICTURES = held_out(10)


@pytest.fixture(scope="module")
def toy() -> LoadedModel:
    return load_model(None)


@pytest.fixture(scope="module")
def embeddings() -> Array:
    return embed(load(), PICTURES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.export(None, options=OPTIONS, out=tmp_path_factory.mktemp("toy"), validate=False).artifact.path


def decode_with(runner: Runner) -> Decode:
    """Through the exported contract, as a client asks; masks of an earlier round where the contract has them."""

    def decode(embedding: Array, points: Array, labels: Array, masks: Array | None) -> tuple[Array, Array]:
        feeds = {"image_embeddings": embedding, "point_coords": points, "point_labels": labels}
        if masks is not None:
            given = np.ones(points.shape[:2], np.float32)
            feeds |= {"mask_input": masks[:, :, None], "has_mask_input": given}
        outputs = runner.run(feeds)
        return outputs["low_res_masks"], outputs["iou_predictions"]

    return decode


def test_the_embedded_weights_are_the_default_and_the_record_tells_their_file(toy: LoadedModel) -> None:
    assert toy.spec.name == "sam_toy"
    assert toy.checkpoint.file is None
    assert toy.checkpoint.sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def test_the_embedded_file_is_recognised_like_any_checkpoint(toy: LoadedModel) -> None:
    named = load_model(WEIGHTS)
    assert named.spec is toy.spec
    assert named.checkpoint == replace(toy.checkpoint, file=WEIGHTS.name)


def test_an_exported_file_records_the_embedded_weights(toy: LoadedModel, exported: Path) -> None:
    record = api.inspect(exported).record
    assert record is not None
    assert (record.model, record.checkpoint) == ("sam_toy", toy.checkpoint)


@pytest.mark.parametrize("kind", FLOORS)
def test_exported_masks_fit_the_drawn_objects(exported: Path, embeddings: Array, kind: str) -> None:
    found = score(decode_with(OrtRunner(exported)), PICTURES, embeddings, kind)
    assert found.prompts >= 30
    assert found.ranked >= FLOORS[kind]
    assert found.ranked >= found.best - 0.05, "the predicted IoUs rank the masks badly"


def eager(decoder: SamDecoder, grid: int, options: GraphOptions) -> Decode:
    graph = build_graph(decoder, grid, options)
    return decode_with(EagerRunner(graph, graph.signature))


def permuted_upscaling(decoder: SamDecoder) -> None:
    weight = decoder.mask_decoder.output_upscaling.get_parameter("3.weight")
    weight.copy_(weight.roll(1, 1))


def zeroed_attention(decoder: SamDecoder) -> None:
    decoder.mask_decoder.transformer.get_parameter("layers.0.cross_attn_image_to_token.out_proj.weight").zero_()


def swapped_point_labels(decoder: SamDecoder) -> None:
    inside, outside = (decoder.prompt_encoder.point_embeddings[label].get_parameter("weight") for label in (1, 0))
    inside.copy_(outside)


@pytest.mark.parametrize("broken", [permuted_upscaling, zeroed_attention, swapped_point_labels])
def test_a_broken_decoder_falls_below_the_floor(
    toy: LoadedModel, embeddings: Array, broken: Callable[[SamDecoder], None]
) -> None:
    decoder = copy.deepcopy(toy.decoder)
    with torch.no_grad():
        broken(decoder)
    found = score(eager(decoder, toy.grid, OPTIONS), PICTURES, embeddings, "one click")
    assert found.ranked < FLOORS["one click"]


def test_corrections_help(toy: LoadedModel, embeddings: Array) -> None:
    first = eager(toy.decoder, toy.grid, OPTIONS)
    later = eager(toy.decoder, toy.grid, replace(OPTIONS, mask_input=True))

    def decode(embedding: Array, points: Array, labels: Array, masks: Array | None) -> tuple[Array, Array]:
        return (first if masks is None else later)(embedding, points, labels, masks)

    once = score(decode, PICTURES, embeddings, "one click")
    corrected = score(decode, PICTURES, embeddings, "click, then 3 corrections")
    assert corrected.ranked > once.ranked + 0.01


def weights_after(steps: int, seed: int) -> dict[str, NDArray[np.float32]]:
    model = [model for _, model in train_toy.train(steps, pool_size=3, seed=seed)][-1]
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def test_a_seed_decides_the_trained_weights() -> None:
    first, again, other = weights_after(2, 0), weights_after(2, 0), weights_after(2, 1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first if name.endswith("proj.weight"))


def test_training_writes_what_loads(tmp_path: Path) -> None:
    train_toy.save(load(), tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").checkpoint.weights_sha256 == (
        load_model(None).checkpoint.weights_sha256
    )


def test_objects_are_apart_and_prompts_lie_where_they_should() -> None:
    for index in range(8):
        rng = np.random.default_rng(index)
        picture = draw(rng)
        assert picture.pixels.shape == (SIDE, SIDE, 3)
        assert picture.objects.sum(0).max() == 1
        for target in picture.objects:
            (x, y), (away_x, away_y) = clicks(rng, target).points.astype(int)
            assert target[y, x]
            assert not target[away_y, away_x]
            (left, top), (right, bottom) = box(rng, target, slack=0).points.astype(int)
            assert target[top : bottom + 1, left : right + 1].sum() == target.sum()


def test_a_correction_is_on_the_larger_mistake() -> None:
    rng = np.random.default_rng(0)
    target, found = np.zeros((2, SIDE, SIDE), bool)
    target[50:100, 50:100] = True
    found[50:60, 50:60] = found[150:160, 150:160] = True
    missed = correction(rng, target, found)
    ((x, y),) = missed.points.astype(int)
    assert missed.labels.tolist() == [1]
    assert target[y, x]
    assert not found[y, x]
    found[120:250, 120:250] = True
    extra = correction(rng, target, found)
    ((x, y),) = extra.points.astype(int)
    assert extra.labels.tolist() == [0]
    assert found[y, x]
    assert not target[y, x]


def test_enlarging_is_torchs_bilinear_resize() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size=SIDE, mode="bilinear")[0]
    np.testing.assert_allclose(enlarge(logits), expected.numpy(), atol=1e-5)


def test_the_demo_writes_its_picture_and_its_inputs(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", str(exported), str(exported)])
    demo.main()
    said = capsys.readouterr().out
    assert said.count("IoU with the drawn shapes") == len(demo.SCENES)
    assert said.count(" 0 of ") == 2 * len(demo.SCENES)
    assert exported.with_name("demo.png").stat().st_size > 10_000
    assert api.validate(exported, feeds=exported.with_name("demo.npz")).result.passed
