from __future__ import annotations

import itertools
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from samdec_export.core import drawing
from samdec_export.core.drawing import MASK_INPUTS, POOL, VALUES, Case, Values, slice_numbers
from samdec_export.core.errors import UsageError
from samdec_export.core.feeds import example_sizes, make_feeds, sizes_of
from samdec_export.core.options import GraphOptions
from samdec_export.core.prompts import CLICK, MEANINGS, Meaning, meanings_of
from samdec_export.core.signature import Dim, Signature, TensorSpec
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.models.contracts import Axes, contract
from samdec_export.models.sam.graphs import build_graph
from samdec_export.parity.cases import read_feeds
from samdec_export.parity.sweeps import sweep

PROMPTS = GraphOptions(graph="prompts", mask_input=True, dynamic_grid=True)


def signature_of(model: LoadedModel, options: GraphOptions = PROMPTS) -> Signature:
    return build_graph(model.decoder, model.grid, options).signature


def test_a_full_sweep_asks_every_size_and_every_two_that_matter(tiny: LoadedModel) -> None:
    signature = signature_of(tiny)
    cases = sweep(signature)
    for dim in signature.dims:  # none is longer than 17
        assert {case.sizes[dim.name] for case in cases} == {*range(dim.min, dim.max + 1)}, dim.name
    for one, two in itertools.combinations(signature.dims, 2):
        met = {(case.sizes[one.name], case.sizes[two.name]) for case in cases}
        assert {*itertools.product(one.sizes, two.sizes)} <= met, (one.name, two.name)
    assert {case.mask_input for case in cases} == {*MASK_INPUTS}
    assert {case.values for case in cases} == {*VALUES}
    assert len({case.name for case in cases}) == len(cases)


def test_a_long_axis_is_asked_where_kernels_change() -> None:
    sizes = {case.sizes["batch"] for case in sweep(contract_of(GraphOptions()))}
    assert sizes >= {*range(1, 18), 31, 32, 33, 63, 64}
    assert len(sizes) < 30


@pytest.mark.parametrize("options", [GraphOptions(), PROMPTS, GraphOptions(graph="meta")], ids=lambda item: item.graph)
def test_a_quick_sweep_is_the_first_part_of_a_full_one(options: GraphOptions) -> None:
    signature = contract_of(options)
    quick, full = sweep(signature, "quick"), sweep(signature)
    assert quick == full[: len(quick)]
    slices = [math.prod(case.sizes[dim.name] for dim in signature.dims if dim.independent) for case in quick]
    assert max(slices) <= 9
    assert {case.values for case in quick} == {*VALUES}
    points = [(case.sizes["points"], number) for case in quick for number in numbers_of(signature, case)]
    asked = {meanings_of(count)[number % len(meanings_of(count))] for count, number in points}
    assert options.graph == "decoder" or asked == {*MEANINGS}


def contract_of(options: GraphOptions) -> Signature:
    return contract(Axes(options=options, channels=256, grid=64, mask_tokens=4), options)


def numbers_of(signature: Signature, case: Case) -> list[int]:
    """The numbers of the prompts that a case asks of its first image."""
    inner = next(dim for dim in reversed(signature.dims) if dim.independent)
    return [*slice_numbers(case.first, case.sizes[inner.name])]


def test_no_two_slices_of_a_lap_are_alike() -> None:
    for first in (0, 5, POOL - 1):
        numbers = [*slice_numbers(first, 3 * POOL)]
        laps = [numbers[start : start + POOL] for start in range(0, len(numbers), POOL)]
        assert all(len({*lap}) == POOL for lap in laps)
        assert len({tuple(lap) for lap in laps}) == len(laps)


def test_cases_share_their_slices() -> None:
    """Prompt 3 is the same one whatever else a case asks, so a reference need not be asked of it again."""
    one, other = (
        make_feeds(SIGNATURE, Case(sizes={**SMALL, "prompts": count}, first=first), 1)
        for count, first in ((4, 0), (2, 3))
    )
    for name in ("point_coords", "point_labels", "mask_input"):
        assert np.array_equal(one[name][0, 3], other[name][0, 0]), name
    assert np.array_equal(one["image_embeddings"], other["image_embeddings"])


@pytest.mark.parametrize("values", VALUES)
def test_embeddings_are_distributed_as_is_said(values: Values) -> None:
    drawn = make_feeds(SIGNATURE, Case(sizes=SMALL, values=values))["image_embeddings"].astype(np.float64)
    spread, most = drawn.std(axis=(-1, -2)).max(), np.abs(drawn).max()
    holds = {
        "normal": most < 6,
        "spikes": most > 6,
        "offset": drawn.mean() > 2,
        "constant": spread < 1e-6 < drawn.std(),
        "zero": most == 0,
        "tiny": 0 < most < np.finfo(np.float32).smallest_normal,
    }
    assert holds[values]


def test_masks_are_what_clients_send() -> None:
    sizes = {**SMALL, "prompts": 10}
    masks = make_feeds(SIGNATURE, Case(sizes=sizes, mask_input="on"))["mask_input"][0]
    kinds = {tuple(np.unique(mask)) for mask in masks if len(np.unique(mask)) <= 2}
    assert kinds >= {(0.0, 1.0), (-1024.0, 1024.0), (-1024.0,)}
    unread = make_feeds(SIGNATURE, Case(sizes=sizes, mask_input="unread"))
    assert np.isnan(unread["mask_input"]).all()
    assert not unread["has_mask_input"].any()
    between = make_feeds(SIGNATURE, Case(sizes=sizes, mask_input="between"))["has_mask_input"]
    assert {*np.unique(between)} == {-1.0, 0.25, 0.75, 2.0}


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
    monkeypatch.setattr("samdec_export.core.drawing._slice", drawing._slice.__wrapped__)  # which keeps what it drew
    found = {}
    for block in (1, 1000, 1 << 16):
        monkeypatch.setattr("samdec_export.core.drawing.BLOCK", block)
        found[block] = make_feeds(signature, case).sha256
    assert len({*found.values()}) == 1
    rng = np.random.default_rng([0, 0, zlib.crc32(b"x normal")])
    drawn = make_feeds(PLAIN, Case(sizes={"points": 2}))
    assert np.array_equal(drawn["x"], rng.standard_normal((2, 70_000)).astype(np.float32))


POINTS = Dim(name="points", min=1, opt=2, max=4)
PLAIN = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=(POINTS, 70_000), content="embedding"),
        TensorSpec(name="y", dtype="float16", shape=(3, POINTS), content="logits"),
    ),
    outputs=(),
)
SIGNATURE = signature_of(load_model(None, "sam_tiny"))
SMALL = {"images": 1, "height": 8, "width": 8, "prompts": 1, "points": 5}


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
    extent = 16 * np.array([sizes["width"], sizes["height"]])
    assert (np.abs(feeds["point_coords"]) <= np.maximum(1.5 * extent, 10)).all(), "no further than people click"
    for labels in feeds["point_labels"].reshape(-1, sizes["points"]):
        assert any(matches(meaning, labels) for meaning in meanings_of(sizes["points"]))
    for spec in SIGNATURE.inputs:
        assert feeds[spec.name].dtype == spec.dtype


def matches(meaning: Meaning, labels: NDArray[np.int64]) -> bool:
    """Whether labels are those of a meaning; a click is foreground or background."""
    between = (meaning.fill,) * (len(labels) - len(meaning.front) - len(meaning.back))
    wanted = (*meaning.front, *between, *meaning.back)
    return all(label == want or (want == CLICK and label in (0, 1)) for label, want in zip(labels, wanted, strict=True))


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
