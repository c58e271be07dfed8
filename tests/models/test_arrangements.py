"""Fused against reference on every graph contract: algebra in float64, rounding in float32."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from samdec_export.backends.eager import EagerRunner
from samdec_export.core.feeds import Case, make_feeds
from samdec_export.core.options import ArrangementName, GraphOptions
from samdec_export.core.runner import Outputs
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.decoder import SamDecoder, seed_weights
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.compare import measure_tensor

CONTRACTS = {
    "decoder": GraphOptions(),
    "prompts": GraphOptions(graph="prompts", masks="all"),
    "prompts with masks": GraphOptions(graph="prompts", masks="single", mask_input=True),
    "prompts, dynamic grid": GraphOptions(graph="prompts", masks="best", dynamic_grid=True),
    "meta": GraphOptions(graph="meta"),
}
FP32_LIMIT, FP64_LIMIT = 2e-6, 1e-11
RMS_LIMIT, MAX_LIMIT = 1.5, 3.0
"""With heavy tails, of the reference's own distance to float64."""


def make_model(name: str, scale: float = 1.0) -> SamDecoder:
    model = SamDecoder(MODELS[name].architecture).eval().requires_grad_(False)
    seed_weights(model, 0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.mul_(scale)
    return model


def run(model: SamDecoder, options: GraphOptions, arrangement: ArrangementName, prompts: int, double: bool) -> Any:
    """The outputs of one graph and its signature."""
    if double:
        model = copy.deepcopy(model).double()
    grid = 8 if model.mask_decoder.iou_token.embedding_dim == 32 else 64
    fields = {name: getattr(options, name) for name in ("graph", "masks", "mask_input", "dynamic_grid")}
    graph = build_graph(model, grid, GraphOptions(**fields, arrangement=arrangement))
    sizes = {dim.name: dim.opt for dim in graph.signature.dims}
    wanted = {"images": 2, "prompts": prompts, "batch": prompts, "points": 3, "height": grid - 3, "width": grid - 1}
    sizes |= {name: size for name, size in wanted.items() if name in sizes}
    feeds = make_feeds(graph.signature, Case(sizes=sizes, mask_input="on" if options.graph == "meta" else "mixed"))
    return EagerRunner(graph, graph.signature, exact=double).run(feeds), graph.signature


@pytest.mark.parametrize(("double", "limit"), [(False, FP32_LIMIT), (True, FP64_LIMIT)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", ["sam_tiny", "sam_b"])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_fused_is_the_reference(contract: str, name: str, double: bool, limit: float) -> None:
    model = make_model(name)
    expected, signature = run(model, CONTRACTS[contract], "reference", 3, double)
    found, _ = run(model, CONTRACTS[contract], "fused", 3, double)
    for spec in signature.outputs:
        assert measure_tensor(spec, expected[spec.name], found[spec.name]).error <= limit


@pytest.mark.parametrize("name", ["sam_tiny", "sam_b"])
@pytest.mark.parametrize("contract", ["decoder", "prompts"])
def test_heavy_tails_do_not_hurt_fused_more_than_the_reference(contract: str, name: str) -> None:
    """The root mean square is that of the middle prompt.

    A few prompts amplify rounding five to eight times as much as the others, in either arrangement, and alone would
    decide a figure pooled over all.
    """
    model = make_model(name, scale=4.0)
    prompts = 40 if name == "sam_b" else 48
    truth, signature = run(model, CONTRACTS[contract], "reference", prompts, double=True)
    plain, _ = run(model, CONTRACTS[contract], "reference", prompts, double=False)
    fused, _ = run(model, CONTRACTS[contract], "fused", prompts, double=False)
    mask = signature.outputs[0]
    own = measure_tensor(mask, truth[mask.name], plain[mask.name]).error
    assert own > 1e-5, "the tails are heavy: rounding is amplified"
    for spec in signature.outputs:
        errors = [outputs[spec.name] - truth[spec.name] for outputs in (fused, plain)]
        axes = 3 if spec is mask else 1  # (M, height, width) or (M): the axes before are prompts
        typical = [middle_root_mean_square(error, axes) for error in errors]
        largest = [float(np.abs(error).max()) for error in errors]
        assert typical[0] <= RMS_LIMIT * typical[1], spec.name
        assert largest[0] <= MAX_LIMIT * largest[1], spec.name


def middle_root_mean_square(error: NDArray[Any], axes: int) -> float:
    """The median over prompts of the root mean square over the last `axes` axes."""
    rows = error.reshape(-1, int(np.prod(error.shape[error.ndim - axes :])))
    return float(np.median(np.sqrt(np.mean(rows**2, axis=1))))


def test_a_wrong_arrangement_would_be_noticed() -> None:
    model = make_model("sam_tiny")
    expected, signature = run(model, CONTRACTS["decoder"], "reference", 3, double=True)
    model.mask_decoder.transformer.get_parameter("layers.1.cross_attn_image_to_token.v_proj.bias").add_(1e-6)
    found: Outputs = run(model, CONTRACTS["decoder"], "fused", 3, double=True)[0]
    mask = signature.outputs[0]
    assert measure_tensor(mask, expected[mask.name], found[mask.name]).error > FP64_LIMIT
    assert not torch.equal(torch.from_numpy(found[mask.name]), torch.from_numpy(expected[mask.name]))
