"""The fused decoder is the plain decoder: same numbers, for every contract, shape and choice of masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from samdec_export.core.options import MASKS, MasksMode
from samdec_export.models.registry import MODELS, Architecture
from samdec_export.models.sam.decoder import SamDecoder, seed_weights
from samdec_export.models.sam.fused import Forms, FusedMaskDecoder, choose_forms

TINY = MODELS["sam_tiny"].architecture
FULL = Architecture()

FORMS = {
    "shared": Forms(first="shared", others="absorbed", last="absorbed"),
    "absorbed": Forms(first="absorbed", others="absorbed", last="absorbed"),
    "plain": Forms(first="plain", others="plain", last="plain"),
}

FP32_LIMIT = 2e-6
"""Share of the output's range. Sums of up to 4096 terms that round to 6e-8 each, in another order; measured 1.1e-6."""

FP64_LIMIT = 1e-11
"""Share of the output's range. Measured 4e-15: what is above this is a mistake and not rounding."""

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make_model(architecture: Architecture, dtype: torch.dtype) -> SamDecoder:
    model = SamDecoder(architecture).eval().requires_grad_(False)
    seed_weights(model, 0)
    return model.to(dtype)


def make_inputs(
    model: SamDecoder, grid: tuple[int, int], images: int, prompts: int, points: int, *, each: bool
) -> Inputs:
    """Image, positions, points, and a mask prompt for `each` prompt or one constant."""
    like = model.mask_decoder.iou_token.weight
    channels = like.shape[1]
    random = torch.Generator().manual_seed(images + 10 * prompts + 100 * points)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).to(like.dtype)

    encoder = model.prompt_encoder
    dense = noise(images, prompts, channels, *grid) if each else encoder.no_mask().unsqueeze(0)
    return noise(images, channels, *grid), encoder.dense_pe(*grid), noise(images, prompts, points, channels), dense


def reference(model: SamDecoder, inputs: Inputs, masks: MasksMode) -> tuple[Tensor, Tensor]:
    """What the plain decoder says, prompt by prompt, with the masks chosen in the plainest way."""
    image, position, sparse, dense = inputs
    images, prompts, points = sparse.shape[:3]
    dense = dense.expand(images, prompts, -1, *image.shape[-2:])
    pairs = [
        _choose(
            *model.mask_decoder.predict_masks(image[i : i + 1], position, sparse[i, p : p + 1], dense[i, p : p + 1]),
            masks,
            points,
        )
        for i, p in itertools.product(range(images), range(prompts))
    ]
    logits, iou = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return logits.reshape(images, prompts, *logits.shape[1:]), iou.reshape(images, prompts, -1)


def _choose(logits: Tensor, iou: Tensor, masks: MasksMode, points: int) -> tuple[Tensor, Tensor]:
    """One prompt's masks (1, M_all, 4h, 4w) and quality (1, M_all)."""
    best = 0 if points > 2 else 1 + int(iou[0, 1:].argmax())
    chosen = {"multi": slice(1, None), "single": slice(0, 1), "all": slice(None), "best": slice(best, best + 1)}[masks]
    return logits[:, chosen], iou[:, chosen]


def distance(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """The largest difference as a share of the output's range; a quality's range is at least 1 by definition."""
    worst = 0.0
    for ours, theirs, least in zip(found, expected, (0.0, 1.0), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        span = max(least, float(theirs.max() - theirs.min()))
        difference = float((ours - theirs).abs().max()) / span
        assert difference == difference, "NaN"  # noqa: PLR0124  # only NaN differs from itself
        worst = max(worst, difference)
    return worst


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("each", [False, True])
def test_tiny_parity(form: str, masks: MasksMode, each: bool) -> None:
    if form == "shared" and each:
        pytest.skip("a mask prompt for each prompt cannot be shared")
    for dtype, limit in ((torch.float32, FP32_LIMIT), (torch.float64, FP64_LIMIT)):
        model = make_model(TINY, dtype)
        fused = FusedMaskDecoder(model.mask_decoder, masks=masks, forms=FORMS[form])
        for images, prompts, points in itertools.product((1, 3), (1, 5), (1, 2, 17)):
            inputs = make_inputs(model, (8, 8), images, prompts, points, each=each)
            assert distance(fused(*inputs), reference(model, inputs, masks)) <= limit


def test_any_grid() -> None:
    model = make_model(TINY, torch.float64)
    fused = FusedMaskDecoder(model.mask_decoder, masks="all", forms=FORMS["shared"])
    inputs = make_inputs(model, (3, 5), 2, 3, 2, each=False)
    assert distance(fused(*inputs), reference(model, inputs, "all")) <= FP64_LIMIT


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, FP32_LIMIT), (torch.float64, FP64_LIMIT)])
def test_full_size_parity(dtype: torch.dtype, limit: float) -> None:
    model = make_model(FULL, dtype)
    fused = FusedMaskDecoder(model.mask_decoder, masks="all", forms=FORMS["shared"])
    inputs = make_inputs(model, (64, 64), 1, 2, 2, each=False)
    assert distance(fused(*inputs), reference(model, inputs, "all")) <= limit


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.image_to_token.query_bias",
        "layers.1.token_to_image.out_bias",
        "layers.1.image_to_token.out_bias",
        "last.query",
        "upscaling.second_bias",
        "hypernetworks.biases.1",
    ],
)
def test_a_broken_weight_is_found(name: str) -> None:
    model = make_model(TINY, torch.float64)
    fused = FusedMaskDecoder(model.mask_decoder, masks="all", forms=FORMS["shared"])
    inputs = make_inputs(model, (8, 8), 1, 2, 2, each=False)
    with torch.no_grad():
        fused.get_parameter(name).view(-1)[0] += 1e-3
    assert distance(fused(*inputs), reference(model, inputs, "all")) > FP64_LIMIT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_source_is_left_alone(dtype: torch.dtype) -> None:
    model = make_model(TINY, dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = FusedMaskDecoder(model.mask_decoder, masks="all", forms=FORMS["plain"])
    for tensor in fused.state_dict().values():
        tensor.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_shared_needs_one_mask_prompt() -> None:
    model = make_model(TINY, torch.float32)
    fused = FusedMaskDecoder(model.mask_decoder, masks="all", forms=FORMS["shared"])
    with pytest.raises(ValueError, match="shared"):
        fused(*make_inputs(model, (8, 8), 1, 3, 2, each=True))


def test_forms_follow_the_number_of_tokens() -> None:
    decoder = make_model(FULL, torch.float32).mask_decoder
    few = choose_forms(decoder, masks="multi", points=2, prompts=8, shared=True)
    many = choose_forms(decoder, masks="multi", points=15, prompts=8, shared=False)
    assert (few.first, few.others, few.last) == ("shared", "absorbed", "absorbed")
    assert (many.first, many.others, many.last) == ("plain", "plain", "absorbed")
    assert len(few.reasons) == len(many.reasons) == 3


def test_a_shared_first_layer_pays_from_three_prompts_on() -> None:
    decoder = make_model(FULL, torch.float32).mask_decoder
    chosen = [choose_forms(decoder, masks="multi", points=2, prompts=count, shared=True).first for count in (1, 2, 3)]
    assert chosen == ["absorbed", "absorbed", "shared"]


def test_export_keeps_every_axis_dynamic() -> None:
    model = make_model(TINY, torch.float32)
    fused = FusedMaskDecoder(model.mask_decoder, masks="best", forms=FORMS["shared"])
    inputs = make_inputs(model, (6, 7), 2, 3, 4, each=False)
    dim = torch.export.Dim
    height, width, images = dim("h"), dim("w"), dim("images")
    shapes = (
        {0: images, 2: height, 3: width},
        {2: height, 3: width},
        {0: images, 1: dim("prompts"), 2: dim("points")},
        None,
    )
    program = torch.export.export(fused, inputs, dynamic_shapes=shapes, strict=False).module()
    for grid, images_, prompts, points in (((8, 5), 1, 1, 1), ((4, 4), 3, 2, 9)):
        other = make_inputs(model, grid, images_, prompts, points, each=False)
        assert distance(program(*other), fused(*other)) <= FP32_LIMIT
