"""Every graph that TensorRT can take, with a ViT-B's channels, every arrangement and precision, through the commands.

The builds are real and need no GPU. The run's summary has a table of what they took.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
import torch
from command_line import call

from samdec_export.backends.tensorrt.engine import PRODUCTS
from samdec_export.backends.tensorrt.engine_file import open_engine
from samdec_export.backends.tensorrt.options import DEFAULT_TARGETS
from samdec_export.core.drawing import Case
from samdec_export.core.dtypes import FORMATS, Precision
from samdec_export.core.feeds import make_feeds
from samdec_export.core.signature import Dim
from samdec_export.export.dataflow import MATRIX_PRODUCTS
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import POSITIONS
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.decoder import SamDecoder, seed_weights

Words: TypeAlias = tuple[str, ...]

CONTRACTS: dict[str, Words] = {
    "decoder": ("--graph", "decoder"),
    "prompts": ("--graph", "prompts"),
    "prompts --mask-input": ("--graph", "prompts", "--mask-input"),
}
FULL_GRID, SMALL_GRID = 64, 16
TURING = ("sm75", *DEFAULT_TARGETS)
BUILDS: dict[str, tuple[Precision, Words, tuple[str, ...]]] = {
    "fp32": ("fp32", (), DEFAULT_TARGETS),
    "fp16": ("fp16", ("--fp16",), DEFAULT_TARGETS),
    "fp16 with sm75": ("fp16", ("--fp16",), TURING),
    "bf16": ("bf16", ("--bf16",), DEFAULT_TARGETS),
}
"""Precision, what the commands take for it, and GPU generations: all of them in one file."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A ViT-B's whole decoder, seeded, and of its image encoder what tells it, on a grid of 64 tokens a side or 16."""
    spec = MODELS["sam_b"]
    model = SamDecoder(spec.architecture)
    with torch.no_grad():
        seed_weights(model, 0)  # as in test_oracle, which traces the decoder too
    assert spec.encoder is not None
    paths = {grid: tmp_path_factory.mktemp("checkpoint") / "sam_b.pt" for grid in (FULL_GRID, SMALL_GRID)}
    for grid, path in paths.items():
        encoder = {spec.encoder.key: torch.zeros(spec.encoder.shape), POSITIONS: torch.zeros(1, grid, grid, 768)}
        torch.save({**model.state_dict(), **encoder}, path)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builds")


def exported(capsys: pytest.CaptureFixture[str], checkpoint: Path, contract: str, arrangement: str, out: Path) -> Path:
    """The fp32 file in `out`, exported where it is not there yet, and beside it a small case to measure ranges on."""
    if not out.exists():
        words: tuple[str | Path, ...] = (
            "--ckpt",
            checkpoint,
            *CONTRACTS[contract],
            "--arrangement",
            arrangement,
            "--out",
            out,
        )
        code, _, err = call(capsys, "onnx", *words, "--no-validate")
        assert code == 0, err
    (path,) = (path for path in out.glob("*.onnx") if path.name.count(".") == 2)
    signature = open_artifact(path).record.signature
    sizes = {dim.name: 1 if dim.name == "images" else 2 for dim in signature.dims}
    feeds = make_feeds(signature, Case(sizes=sizes))
    np.savez(out / "feeds.npz", **feeds)  # type: ignore[arg-type]  # savez has an option of its own
    return path


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("arrangement", ["fused", "reference"])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_it_builds(
    checkpoints: dict[int, Path],
    folder: Path,
    contract: str,
    arrangement: str,
    build: str,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Every graph has all channels and heads; the decoder's also has all image tokens.

    What TensorRT builds from and what the sidecar says depends on operators, types and channels. Tokens only are
    more: a grid of 16 shows all that the prompts around the decoder add, for a tenth of the conversions' cost.
    """
    precision, flags, targets = BUILDS[build]
    checkpoint = checkpoints[FULL_GRID if contract == "decoder" else SMALL_GRID]
    source = exported(capsys, checkpoint, contract, arrangement, folder / f"{contract}, {arrangement}")
    if flags:
        words = (*flags, *(("--all-products",) if "sm75" in targets else ()), "--no-validate")
        code, _, err = call(capsys, "convert", source, *words, "--feeds", source.with_name("feeds.npz"))
        assert code == 0, err
    code, out, err = call(capsys, "trt", source, *flags, "--engine", "rtx", "--targets", ",".join(targets), "--json")
    assert code == 0, err
    built = json.loads(out)
    check_sidecar(built, targets)
    kept = kept_products(Path(built["onnx"]), built["artifact"]["source"]["kept"])
    assert bool(kept) == (precision != "fp32" and "sm75" not in targets)
    check_products(built["artifact"], precision, kept)
    size = Path(built["path"]).stat().st_size
    seconds = built["artifact"]["seconds"]
    record_property("measured", f"{contract:21} {arrangement:10} {build:15} {seconds:5.1f} s {size / 1e6:6.1f} MB")
    Path(built["path"]).unlink()  # 30 MB each


def check_sidecar(built: dict[str, Any], targets: tuple[str, ...]) -> None:
    """What the sidecar says is all there, and of these files."""
    said = built["artifact"]
    assert said == json.loads(Path(built["path"] + ".json").read_text())
    assert said["sha256"] == open_engine(Path(built["path"])).sha256
    source = open_artifact(Path(built["onnx"]))
    assert said["file"] == f"sam_b.{source.record.graph}.{source.record.precision_label}.{'-'.join(targets)}.engine"
    assert (said["onnx"], said["onnx_sha256"]) == (source.path.name, source.sha256)
    assert said["source"] == source.record.to_json()
    assert (said["engine"], tuple(said["targets"])) == ("rtx", targets)
    assert said["version"].count(".") >= 2
    assert (said["settings"]["strongly_typed"], said["settings"]["tf32"]) == (True, False)
    (profile,) = said["profiles"]
    assert [Dim(**dim) for dim in profile] == [*source.record.signature.dims]
    specs = (*source.record.signature.inputs, *source.record.signature.outputs)
    assert {tensor["name"]: tensor["shape"] for tensor in said["tensors"]} == {
        spec.name: [*spec.labels] for spec in specs
    }
    assert said["histogram"]
    assert said["seconds"] > 0
    assert "tensorrt-rtx-cu13" in said["tools"]


def kept_products(path: Path, kept: dict[str, str]) -> int:
    """How many matrix products of an ONNX file its record keeps in fp32."""
    nodes = onnx.load(path).graph.node
    return sum(node.name in kept for node in nodes if node.op_type in MATRIX_PRODUCTS)


def check_products(said: dict[str, Any], precision: Precision, kept: int) -> None:
    """Matrices are multiplied in the precision, but for those that were kept; normalisations are in fp32."""
    histogram = said["histogram"]
    products = Counter[str]()
    for kind in PRODUCTS:
        products.update(histogram.get(kind, {}))
    assert products.pop(FORMATS[precision].tensorrt) > 10
    assert products == ({"FLOAT": kept} if kept else {})
    assert {*histogram["NORMALIZATION"]} == {"FLOAT"}
    assert not [text for text in said["warnings"] if "layernorm" in text.lower()]
