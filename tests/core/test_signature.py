from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdec_export.core.options import GRAPHS, GraphName, GraphOptions
from samdec_export.core.signature import Dim, Scaled, Signature, TensorSpec
from samdec_export.models.checkpoint import LoadedModel
from samdec_export.models.sam.graphs import build_graph

SPEC = TensorSpec(name="x", dtype="float32", shape=(1,), content="embedding")


def with_axes(*axes: int | Dim | Scaled) -> TensorSpec:
    return TensorSpec(name="y", dtype="float32", shape=axes, content="embedding")


def test_one_axis_has_one_range() -> None:
    narrow, wide = Dim(name="batch", min=1, opt=1, max=4), Dim(name="batch", min=1, opt=1, max=8)
    with pytest.raises(ValueError, match="axis batch has two ranges"):
        Signature(inputs=(with_axes(narrow),), outputs=(with_axes(Scaled(wide, 4)),))


@given(st.integers(-2, 5), st.integers(-2, 5), st.integers(-2, 5))
def test_a_range_is_ordered_and_positive(low: int, opt: int, high: int) -> None:
    if 1 <= low <= opt <= high:
        assert Dim(name="n", min=low, opt=opt, max=high).sizes == tuple(sorted({low, opt, high}))
    else:
        with pytest.raises(ValueError, match="min <= opt <= max"):
            Dim(name="n", min=low, opt=opt, max=high)


def test_scaled_axes_follow_their_dim() -> None:
    height = Dim(name="height", min=2, opt=8, max=8)
    spec = with_axes(3, height, Scaled(height, 4))
    assert spec.concrete({"height": 5}) == (3, 5, 20)
    assert spec.labels == (3, "height", "4*height")


@pytest.mark.parametrize("dynamic_grid", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_json_keeps_every_contract(tiny: LoadedModel, graph: GraphName, dynamic_grid: bool) -> None:
    options = GraphOptions(graph=graph, dynamic_grid=dynamic_grid, mask_input=graph == "prompts")
    signature = build_graph(tiny.decoder, tiny.grid, options).signature
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
