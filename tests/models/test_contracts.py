"""Contracts are data: they are read without torch, and name what a wrong range is about."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from samdec_export.core.errors import UsageError
from samdec_export.core.options import GraphName, GraphOptions
from samdec_export.core.signature import Dim
from samdec_export.models.contracts import CONTRACTS, Axes, contract


def axes_of(options: GraphOptions) -> Axes:
    return Axes(options=options, channels=32, grid=8, mask_tokens=4)


def test_every_graph_has_a_contract() -> None:
    assert {*CONTRACTS} == {*get_args(GraphName)}


def test_contracts_need_no_torch() -> None:
    code = "import sys, samdec_export.models.contracts; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx"} & {*shown}


@pytest.mark.parametrize("graph", CONTRACTS)
def test_an_axis_that_a_graph_does_not_have_is_refused(graph: GraphName) -> None:
    options = GraphOptions(graph=graph, ranges=(Dim(name="boxes", min=1, opt=1, max=2),))
    with pytest.raises(UsageError, match=f"The {graph} graph has no dynamic axis 'boxes'"):
        contract(axes_of(options), options)


def test_what_is_asked_for_is_in_the_signature() -> None:
    points = Dim(name="points", min=2, opt=3, max=4)
    options = GraphOptions(graph="prompts", mask_input=True, masks="all", dynamic_grid=True, ranges=(points,))
    signature = contract(axes_of(options), options)
    assert points in signature.dims
    assert [spec.name for spec in signature.inputs] == [
        *("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
    ]
    assert signature.inputs[3].labels == ("images", "prompts", 1, "4*height", "4*width")
    assert signature.outputs[0].labels == ("images", "prompts", 4, "4*height", "4*width")
    coords = signature.inputs[1]
    assert [coords.extent[index].dim.name for index in (0, 1)] == ["width", "height"]  # type: ignore[union-attr]
