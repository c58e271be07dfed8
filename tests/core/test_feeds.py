from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import Case, example_sizes, make_feeds, sizes_of
from samdec_export.core.options import GraphOptions
from samdec_export.core.signature import Dim, Signature, TensorSpec
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.cases import read_feeds
from samdec_export.parity.sweeps import sweep

PROMPTS = GraphOptions(graph="prompts", mask_input=True, dynamic_grid=True)


def signature_of(model: LoadedModel, options: GraphOptions = PROMPTS) -> Signature:
    return build_graph(model.decoder, model.grid, options).signature


def test_a_full_sweep_visits_every_corner_and_sizes_between(tiny: LoadedModel) -> None:
    signature = signature_of(tiny)
    cases = sweep(signature)
    visited = {tuple(case.sizes.values()) for case in cases}
    corners = set(itertools.product(*(dim.sizes for dim in signature.dims)))
    assert corners <= visited
    assert visited - corners
    assert {case.mask_input for case in cases} == {"off", "on", "mixed"}
    assert len({case.name for case in cases}) == len(cases)


def test_a_quick_sweep_takes_few_slices_of_independent_axes(tiny: LoadedModel) -> None:
    assert {case.sizes["prompts"] for case in sweep(signature_of(tiny), "quick")} == {1, 3}


def test_example_sizes_are_distinct_and_above_one(tiny: LoadedModel) -> None:
    sizes = list(example_sizes(signature_of(tiny)).values())
    assert len(set(sizes)) == len(sizes)
    assert min(sizes) > 1


def test_feeds_follow_from_seed_and_case(tiny: LoadedModel) -> None:
    signature = signature_of(tiny)
    one, other = sweep(signature)[:2]
    first, again, seeded = (make_feeds(signature, one, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image_embeddings"], seeded["image_embeddings"])
    assert one.name != other.name


def test_feeds_are_drawn_in_blocks_as_they_would_be_at_once(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden files hold hashes of these: a block's length must not show."""
    signature = signature_of(tiny)
    case = Case(sizes={"images": 1, "height": 8, "width": 8, "prompts": 3, "points": 2}, mask_input="on")
    found = {}
    for block in (1, 1000, 1 << 16):
        monkeypatch.setattr("samdec_export.core.feeds.BLOCK", block)
        found[block] = make_feeds(signature, case).sha256
    assert len({*found.values()}) == 1
    rng = np.random.default_rng([0, zlib.crc32(b"points=2")])
    drawn = make_feeds(PLAIN, Case(sizes={"points": 2}))
    assert np.array_equal(drawn["x"], rng.standard_normal((2, 70_000)).astype(np.float32))
    assert np.array_equal(drawn["y"], (10 * rng.standard_normal((3, 2))).astype(np.float16))


POINTS = Dim(name="points", min=1, opt=2, max=4)
PLAIN = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=(POINTS, 70_000), content="embedding"),
        TensorSpec(name="y", dtype="float16", shape=(3, POINTS), content="logits"),
    ),
    outputs=(),
)
SIGNATURE = signature_of(load_model(None, "sam_tiny"))


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "images": st.integers(1, 3),
            "height": st.integers(1, 4),
            "width": st.integers(1, 4),
            "prompts": st.integers(1, 5),
            "points": st.integers(1, 9),
        }
    ),
    st.integers(0, 2**32),
)
def test_feeds_are_what_a_client_would_send(sizes: dict[str, int], seed: int) -> None:
    feeds = make_feeds(SIGNATURE, Case(sizes=sizes, mask_input="mixed"), seed)
    assert sizes_of(SIGNATURE, feeds) == sizes
    labels, coords = feeds["point_labels"], feeds["point_coords"]
    assert set(np.unique(labels)) <= {-1, 0, 1, 2, 3}
    assert (labels[..., 0] != -1).all(), "every prompt has a real point"
    assert (coords >= 0).all()
    assert (coords[..., 0] <= 16 * sizes["width"]).all()
    assert (coords[..., 1] <= 16 * sizes["height"]).all()
    boxes = coords[labels[..., 0] == 2] if sizes["points"] > 1 else np.zeros((0, 2, 2))
    assert (boxes[:, 0] <= boxes[:, 1]).all(), "a box's corners are in order"
    for spec in SIGNATURE.inputs:
        assert feeds[spec.name].dtype == spec.dtype


def test_recorded_feeds_are_read_by_case(tiny: LoadedModel, tmp_path: Path) -> None:
    signature = signature_of(tiny, GraphOptions())
    case = sweep(signature, "quick")[1]
    feeds = make_feeds(signature, case)
    np.savez(tmp_path / "one.npz", **feeds)  # type: ignore[arg-type]
    np.savez(tmp_path / "two.npz", **{f"{k}/{name}": v for k in "ab" for name, v in feeds.items()})  # type: ignore[arg-type]
    assert [recorded.name for recorded in read_feeds(tmp_path / "one.npz", signature)] == ["one"]
    recorded = read_feeds(tmp_path / "two.npz", signature)
    assert [case.name for case in recorded] == ["a", "b"]
    assert all(np.array_equal(recorded[1].make()[name], feeds[name]) for name in feeds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_pe": None}, "input image_pe is missing"),
        ({"extra": np.zeros(1)}, "there is no input extra"),
        ({"image_pe": np.zeros((1, 32, 8, 8))}, "image_pe is float64, not float32"),
        ({"image_pe": np.zeros((1, 32, 8), np.float32)}, "image_pe has 3 axes, not 4"),
        ({"image_pe": np.zeros((1, 32, 8, 9), np.float32)}, "image_pe has shape"),
        ({"dense_prompt_embeddings": np.zeros((0, 32, 8, 8), np.float32)}, "an axis of size 0"),
        ({"dense_prompt_embeddings": np.zeros((7, 32, 8, 8), np.float32)}, "shape"),
    ],
)
def test_recorded_feeds_that_do_not_fit_are_refused(
    tiny: LoadedModel, tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    signature = signature_of(tiny, GraphOptions())
    feeds = {**make_feeds(signature, sweep(signature, "quick")[1]), **change}
    np.savez(tmp_path / "f.npz", **{k: v for k, v in feeds.items() if v is not None})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        read_feeds(tmp_path / "f.npz", signature)


def test_a_file_that_is_no_npz_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_text("no arrays here")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("f.npz", "empty.npz", "array.npy"):
        with pytest.raises(UsageError, match=r"is not an \.npz file"):
            read_feeds(tmp_path / name, signature_of(tiny))
    with pytest.raises(UsageError, match="does not exist"):
        read_feeds(tmp_path / "missing.npz", signature_of(tiny))
