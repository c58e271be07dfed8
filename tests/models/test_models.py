from __future__ import annotations

import pytest
import torch
import upstream
from conftest import Arrays, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from samdec_export.core.options import GraphOptions
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.models.sam.graphs import build_graph


def tensors(golden: Arrays, *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(golden[name]) for name in names]


@pytest.mark.parametrize("masks", ["multi", "single"])
def test_mask_decoder_equals_segment_anything(tiny: LoadedModel, upstream_golden: Arrays, masks: str) -> None:
    inputs = tensors(upstream_golden, "image_embeddings", "image_pe", "sparse", "dense")
    found = tiny.decoder.mask_decoder(*inputs, multimask_output=masks == "multi")
    for tensor, key in zip(found, ("masks", "iou"), strict=True):
        assert_close(tensor, upstream_golden[f"{masks}_{key}"], atol=2e-6)


def test_prompt_encoder_equals_segment_anything(tiny: LoadedModel, upstream_golden: Arrays) -> None:
    encoder = tiny.decoder.prompt_encoder
    coords, labels, mask = tensors(upstream_golden, "point_coords", "point_labels", "mask_input")
    assert_close(encoder.embed_points(coords, labels, 8, 8), upstream_golden["sparse"], atol=2e-6)
    assert_close(encoder.embed_masks(mask), upstream_golden["dense"], atol=2e-6)
    assert_close(encoder.dense_pe(8, 8), upstream_golden["image_pe"], atol=2e-6)
    box, corners = torch.tensor([[[10.0, 20], [90, 70]]] * 3), torch.tensor([[2, 3]] * 3)
    assert_close(encoder.embed_points(box, corners, 8, 8), upstream_golden["boxes_sparse"], atol=2e-6)


@pytest.mark.parametrize("size", [(150, 220), (333, 210)])
@pytest.mark.parametrize("has_mask", [0, 1])
@pytest.mark.parametrize("masks", ["all", "best"])
def test_meta_graph_equals_segment_anythings_wrapper(
    tiny: LoadedModel, upstream_golden: Arrays, masks: str, has_mask: int, size: tuple[int, int]
) -> None:
    graph = build_graph(tiny.decoder, 8, GraphOptions(graph="meta", masks=masks))  # type: ignore[arg-type]
    inputs = tensors(upstream_golden, "image_embeddings", "point_coords", "point_labels", "mask_input")
    found = graph(*inputs, torch.tensor([float(has_mask)]), torch.tensor(size, dtype=torch.float32))
    key = f"meta_{masks}_{has_mask}_{size[0]}x{size[1]}"
    assert found[0].shape[-2:] == size
    assert_close(found[0][..., ::7, ::7], upstream_golden[f"{key}_masks"], atol=1e-5)
    assert_close(found[1], upstream_golden[f"{key}_iou"], atol=2e-6)
    assert_close(found[2], upstream_golden[f"{key}_low_res"], atol=2e-6)


def test_prompts_graph_is_meta_for_each_image_and_prompt(tiny: LoadedModel, upstream_golden: Arrays) -> None:
    image, coords, labels, mask = tensors(
        upstream_golden, "image_embeddings", "point_coords", "point_labels", "mask_input"
    )
    images = torch.cat([image, image.flip(-1)])  # (2, C, h, w)
    graph = build_graph(tiny.decoder, 8, GraphOptions(graph="prompts", masks="all", mask_input=True))
    flags = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    masks, iou = graph(
        images, coords.expand(2, -1, -1, -1), labels.long().expand(2, -1, -1), mask.expand(2, -1, -1, -1, -1), flags
    )
    for prompt, has_mask in enumerate((0, 1, 0)):
        key = f"meta_all_{has_mask}_150x220"
        assert_close(masks[0, prompt], upstream_golden[f"{key}_low_res"][prompt], atol=2e-6)
        assert_close(iou[0, prompt], upstream_golden[f"{key}_iou"][prompt], atol=2e-6)
    assert not torch.allclose(masks[0, 1], masks[1, 1]), "each image has its own masks"


def test_without_masks_the_prompts_graph_is_the_one_with_flags_off(tiny: LoadedModel) -> None:
    image, coords = torch.randn(2, 32, 8, 8), 128 * torch.rand(2, 3, 4, 2)
    labels = torch.randint(-1, 4, (2, 3, 4))
    plain = build_graph(tiny.decoder, 8, GraphOptions(graph="prompts"))(image, coords, labels)
    graph = build_graph(tiny.decoder, 8, GraphOptions(graph="prompts", mask_input=True))
    garbage = torch.full((2, 3, 1, 32, 32), torch.nan)
    masked = graph(image, coords, labels, garbage, torch.zeros(2, 3))
    for one, other in zip(plain, masked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


PROMPT_ENCODER = upstream.build_tiny()[0]
OURS = load_model(None, "sam_tiny").decoder.prompt_encoder
PROMPT_ENCODER.load_state_dict(OURS.state_dict(), strict=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_points_embed_as_upstream_embeds_them(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    pixel = st.floats(-64, 192, width=32)
    coords = torch.tensor([[data.draw(st.tuples(pixel, pixel)) for _ in range(count)]])
    labels = torch.tensor([[data.draw(st.sampled_from((-1, 0, 1))) for _ in range(count)]])
    expected = PROMPT_ENCODER(points=(coords, labels), boxes=None, masks=None)[0][:, :count]  # its padding is last
    torch.testing.assert_close(OURS.embed_points(coords, labels, 8, 8), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("change", ["swapped_corners", "labels_shifted", "pixel_centre"])
def test_a_wrong_prompt_encoder_would_be_noticed(tiny: LoadedModel, upstream_golden: Arrays, change: str) -> None:
    coords, labels = tensors(upstream_golden, "point_coords", "point_labels")
    broken = {
        "swapped_corners": (coords, torch.where(labels == 2, 3, torch.where(labels == 3, 2, labels))),
        "labels_shifted": (coords, labels + 1),
        "pixel_centre": (coords - 0.5, labels),
    }[change]
    found = tiny.decoder.prompt_encoder.embed_points(*broken, 8, 8)
    with pytest.raises(AssertionError):
        assert_close(found, upstream_golden["sparse"], atol=2e-6)
