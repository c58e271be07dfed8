"""From fp32 to fp16 and bf16: what is written, what stays, what it costs, and that an overflow cannot hide."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_line import call, is_one_clear_line
from conftest import Export, Typed
from onnx import TensorProto, helper

from samdec_export import api
from samdec_export.core.dtypes import Precision
from samdec_export.core.errors import GraphError, UsageError
from samdec_export.core.options import GraphOptions
from samdec_export.export.cost import usual_products
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import load_model
from samdec_export.precision.autocast import autocast
from samdec_export.precision.keep import CHEAP_SHARE, keep_by_range, keep_by_rule, keep_cheap
from samdec_export.precision.options import Conversion

FP16 = Conversion(precision="fp16")
BF16 = Conversion(precision="bf16")

CONTRACTS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "decoder, dynamic grid": {"opset": 18, "graph": "decoder", "masks": "all", "dynamic_grid": True},
    "prompts": {"graph": "prompts"},
    "meta": {"graph": "meta"},
    "reference": {"opset": 17, "graph": "prompts", "mask_input": True, "arrangement": "reference"},
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint whose first upscaling is a thousand times too large, and its export with LayerNorm2d as written.

    The square of that LayerNorm2d's input leaves fp16; one over the root of infinity is zero, and nothing is NaN.
    """
    folder = tmp_path_factory.mktemp("planted")
    weights = load_model(None, "sam_tiny").decoder.state_dict()
    for name in ("weight", "bias"):
        weights[f"mask_decoder.output_upscaling.0.{name}"] *= 1e3
    torch.save(weights, folder / "planted.pt")
    options = GraphOptions(arrangement="reference")
    return folder / "planted.pt", api.export(
        folder / "planted.pt", options=options, out=folder, validate=False
    ).artifact.path


def converted(export: Export, out: Path, wanted: Conversion = FP16, **options: Any) -> api.Converted:
    return api.convert(export(**options).artifact.path, wanted, out=out)


def casts(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type == "Cast")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_contract_converts_and_passes_its_gate(export: Export, tmp_path: Path, contract: str) -> None:
    done = converted(export, tmp_path, **CONTRACTS[contract])
    assert done.validated is not None
    done.validated.require()
    compared = [(result.candidate.split()[0], result.reference.split()[0]) for result in done.validated.results]
    assert compared == [("onnxruntime", "torch"), ("oracle", "torch"), ("onnxruntime", "oracle")]
    assert done.file.shares["float16"] > 0.95
    assert done.artifact.path.name.endswith(".fp16.onnx")
    assert done.artifact.path.stat().st_size < 0.9 * done.file.parent.stat().st_size, "a tiny model is mostly structure"


@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_cast_is_needless(typed: Typed, contract: str) -> None:
    before, after = onnx.load(typed(**CONTRACTS[contract])), onnx.load(typed("fp16", **CONTRACTS[contract]))
    onnx.checker.check_model(after, full_check=True)
    counts = Counter(node.op_type for node in after.graph.node)
    counts.subtract(Counter(node.op_type for node in before.graph.node))
    assert set(+counts) == {"Cast"}, "nothing is added but casts"
    makers = {name: node for node in after.graph.node for name in node.output}
    readers = Counter(name for node in after.graph.node for name in node.input)
    outputs = {value.name for value in after.graph.output}
    values = (*onnx.shape_inference.infer_shapes(after).graph.value_info, *after.graph.input, *after.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in after.graph.initializer}
    for cast in casts(after):
        assert cast.input[0] not in makers or makers[cast.input[0]].op_type != "Cast", "a pair"
        assert readers[cast.output[0]] or cast.output[0] in outputs, "nobody reads it"
        assert types[cast.input[0]] != cast.attribute[0].i, "it changes nothing"
    kinds = [(cast.input[0], cast.attribute[0].i) for cast in casts(after)]
    assert len(kinds) == len(set(kinds)), "cast twice"


def test_what_costs_little_stays_in_fp32_and_is_stored_in_fp16(export: Export, typed: Typed) -> None:
    source = export().artifact
    flops = {product.node: product.flops for product in usual_products(source.path, source.record.signature)}
    kept = keep_cheap(source.path, flops)
    cheap = [node for node in kept if node in flops]
    assert 0.03 * sum(flops.values()) < sum(flops[node] for node in cheap) <= CHEAP_SHARE * sum(flops.values())
    assert max(flops[node] for node in cheap) <= min(flops[node] for node in {*flops} - {*cheap})
    converted = open_artifact(typed("fp16"))
    model = onnx.load(converted.path)
    matrices = {
        tensor.name: tensor.data_type
        for tensor in model.graph.initializer
        if [*tensor.dims][1:] and min(tensor.dims) > 1
    }
    widened = {cast.input[0] for cast in casts(model)} & {*matrices}
    assert len(widened) > 5
    assert {matrices[name] for name in widened} == {TensorProto.FLOAT16}
    exact = {name for name, kind in matrices.items() if kind == TensorProto.FLOAT}
    readers = {node.name for node in model.graph.node if {*node.input} & exact}
    assert all("scores" in converted.record.kept[name] for name in readers), "only their weights are exact"


def test_tokens_in_fp32_take_no_casts_between_them(typed: Typed, tmp_path: Path) -> None:
    source = typed()
    rules = keep_by_rule(source, ["iou_predictions"])
    autocast(source, tmp_path / "rules.onnx", "fp16", keep=rules)
    converted = onnx.load(typed("fp16"))
    weights = {tensor.name for tensor in converted.graph.initializer}
    between = [cast for cast in casts(converted) if cast.input[0] not in weights]
    assert len(between) <= 1.5 * len([*casts(onnx.load(tmp_path / "rules.onnx"))])


def test_what_stays_in_fp32(export: Export) -> None:
    source = export(graph="meta").artifact.path
    kept = keep_by_rule(source, ["iou_predictions"])
    operators = {node.name: node.op_type for node in onnx.load(source).graph.node}
    for kind in ("LayerNormalization", "Sin", "Cos", "Sqrt", "Pow", "ReduceMean", "Resize", "Floor", "Equal"):
        assert all(name in kept for name, op in operators.items() if op == kind), kind
    assert any(operators[name] == "Mul" and "positional" in reason for name, reason in kept.items())
    products = Counter(reason.split(":")[0] for name, reason in kept.items() if operators[name] in ("MatMul", "Conv"))
    assert products == {"scores": 3}


def test_inputs_and_outputs_may_be_fp16(export: Export, tmp_path: Path) -> None:
    done = converted(export, tmp_path, Conversion(precision="fp16", io="fp16"), graph="prompts")
    assert done.validated is not None
    done.validated.require()
    found = api.inspect(done.artifact.path).summary
    types = {tensor.name: tensor.dtype for tensor in (*found.inputs, *found.outputs)}
    assert types == {
        "image_embeddings": "float16",
        "point_coords": "float32",
        "point_labels": "int64",
        "low_res_masks": "float16",
        "iou_predictions": "float16",
    }


def test_bf16_is_judged_by_the_oracle_alone(export: Export, tmp_path: Path) -> None:
    done = converted(export, tmp_path, Conversion(precision="bf16"))
    assert done.validated is not None
    done.validated.require()
    assert [result.candidate.split()[0] for result in done.validated.results] == ["oracle"]
    assert "no bf16 kernels" in done.validated.notes[0]
    assert done.file.shares["bfloat16"] > 0.95


def test_convolutions_are_products_in_bf16(export: Export, tmp_path: Path) -> None:
    done = converted(export, tmp_path, BF16, **CONTRACTS["reference"])
    assert done.validated is not None
    done.validated.require()
    assert done.file.shares["bfloat16"] > 0.95
    before, after = (
        {node.name: node.op_type for node in onnx.load(path).graph.node}
        for path in (done.file.parent, done.artifact.path)
    )
    convolutions = {name for name, op in before.items() if op in ("Conv", "ConvTranspose")}
    assert len(convolutions) == 5
    assert {after[name] for name in convolutions} == {"MatMul"}, "what names the one finds the other"
    assert not {"Conv", "ConvTranspose"} & {*after.values()}


def test_a_convolution_is_kept_by_name_in_bf16(export: Export, tmp_path: Path) -> None:
    source = export(**CONTRACTS["reference"]).artifact.path
    name = next(node.name for node in onnx.load(source).graph.node if node.op_type == "Conv")
    done = api.convert(source, Conversion(precision="bf16", keep_fp32=(name,)), out=tmp_path, validate=False)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred(done.artifact.path)}
    (product,) = (node for node in onnx.load(done.artifact.path).graph.node if node.name == name)
    assert types[product.output[0]] == TensorProto.FLOAT


def inferred(path: Path) -> Iterator[onnx.ValueInfoProto]:
    yield from onnx.shape_inference.infer_shapes(onnx.load(path)).graph.value_info


@pytest.mark.parametrize("contract", ["decoder", "prompts", "reference"])
def test_no_product_in_fp32_if_so_asked(export: Export, tmp_path: Path, contract: str) -> None:
    usual = api.convert(export(**CONTRACTS[contract]).artifact.path, FP16, out=tmp_path, validate=False)
    done = converted(export, tmp_path, replace(FP16, all_matmuls=True), **CONTRACTS[contract])
    assert usual.file.shares.keys() == {"float16", "float32"}
    assert done.file.shares == pytest.approx({"float16": 1.0})
    assert done.validated is not None
    done.validated.require()
    assert usual.artifact.path != done.artifact.path, "one does not overwrite the other"
    assert done.artifact.path.name.endswith(".fp16.all-products.onnx")
    record = open_artifact(done.artifact.path).record
    assert record.conversion == replace(FP16, all_matmuls=True).to_json()
    assert any("normalisation" in reason for reason in record.kept.values()), "what is no product stays protected"


def test_a_product_that_cannot_be_fp16_is_said(export: Export, planted: tuple[Path, Path], tmp_path: Path) -> None:
    wanted = replace(FP16, all_matmuls=True)
    first = next(node.name for node in onnx.load(export().artifact.path).graph.node if node.op_type == "MatMul")
    with pytest.raises(GraphError, match=f"1 of the matmuls .*: {first} \\(asked for: {first}\\)"):
        api.convert(export().artifact.path, replace(wanted, keep_fp32=(first,)), out=tmp_path, validate=False)
    with pytest.raises(GraphError, match=r"all_matmuls: .*range: "):
        api.convert(planted[1], replace(wanted, margin=60.0), out=tmp_path, validate=False)
    assert not list(tmp_path.iterdir())


def test_two_conversions_are_byte_identical(export: Export, tmp_path: Path) -> None:
    one, other = (api.convert(export().artifact.path, FP16, out=tmp_path / name, validate=False) for name in "ab")
    assert one.artifact.sha256 == other.artifact.sha256


def test_a_planted_overflow_is_kept_in_range(planted: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, source = planted
    done = api.convert(source, FP16, checkpoint, out=tmp_path)
    assert done.validated is not None
    done.validated.require()
    assert sum("normalisation" in reason for reason in done.artifact.record.kept.values()) > 10


def test_a_planted_overflow_cannot_hide(planted: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, source = planted
    done = api.convert(source, Conversion(precision="fp16", protect=False), checkpoint, out=tmp_path)
    assert done.validated is not None
    engine, oracle, _ = done.validated.results
    assert engine.passed, "ONNX Runtime's CPU provider hides it"
    assert not oracle.passed
    masks = [output.masks for case in oracle.cases for output in case.outputs if output.masks]
    assert len(masks) == len(oracle.cases), "every output is finite: nothing else would tell"
    assert min(found.flipped for found in masks) > 0.1


@pytest.mark.parametrize(
    ("precision", "absmax", "kept"),
    [("fp16", 16000.0, False), ("fp16", 17000.0, True), ("fp16", math.nan, True), ("bf16", 1e30, False)],
)
def test_ranges_keep_what_would_overflow(export: Export, precision: Precision, absmax: float, kept: bool) -> None:
    source = export().artifact.path
    tensor = next(node.output[0] for node in onnx.load(source).graph.node if node.op_type == "Gelu")
    found = keep_by_range(source, precision, {tensor: absmax})
    assert len(found) >= 2 if kept else not found, "the node that makes it and each that reads it"


def test_too_few_products_in_fp16_is_an_error(export: Export, tmp_path: Path) -> None:
    with pytest.raises(
        GraphError, match=r"Only .*% of the operations of matrix products would be fp16: .*asked for: MatMul"
    ):
        api.convert(
            export().artifact.path,
            Conversion(precision="fp16", keep_fp32=("MatMul",)),
            out=tmp_path / "out",
            validate=False,
        )
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_nodes_are_kept_by_pattern(export: Export, tmp_path: Path) -> None:
    wanted = Conversion(precision="fp16", keep_fp32=("Soft*", "Gelu"))
    done = api.convert(export().artifact.path, wanted, out=tmp_path, validate=False)
    asked = [name for name, reason in done.artifact.record.kept.items() if "asked for" in reason]
    model = onnx.load(done.artifact.path)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    kept = [node for node in model.graph.node if node.op_type in ("Softmax", "Gelu")]
    assert len(kept) >= 5
    assert {node.name for node in kept} == set(asked)
    assert {types[node.output[0]] for node in kept} == {TensorProto.FLOAT}
    with pytest.raises(UsageError, match="'Nonsense' matches no node"):
        api.convert(
            export().artifact.path, Conversion(precision="fp16", keep_fp32=("Nonsense",)), out=tmp_path, validate=False
        )


def test_a_search_meets_its_target_or_says_so(export: Export, tmp_path: Path) -> None:
    source = export().artifact.path
    free = api.convert(source, Conversion(precision="fp16", max_flips=0.5), out=tmp_path, validate=False)
    assert free.file.search is not None
    assert (free.file.search.units, free.file.search.measured) == ((), 1)
    target = 0.9 * free.file.search.before
    try:
        found = api.convert(
            source, Conversion(precision="fp16", max_flips=target), out=tmp_path, validate=False
        ).file.search
    except GraphError as error:
        assert "of the mask pixels flip with all that was found" in str(error)  # noqa: PT017  # either end is right
    else:
        assert found is not None
        assert found.after <= target
        assert found.units


def write(path: Path, *nodes: onnx.NodeProto) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.1])
    graph = helper.make_graph(list(nodes), "g", [x], [y], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_bad_input_ends_in_one_line(export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = export().artifact.path
    low = api.convert(source, FP16, out=tmp_path / "low", validate=False).artifact.path
    foreign = write(tmp_path / "foreign.onnx", helper.make_node("Relu", ["x"], ["y"]))
    quantise = helper.make_node("QuantizeLinear", ["x", "s"], ["q"])
    int8 = write(tmp_path / "int8.onnx", quantise, helper.make_node("DequantizeLinear", ["q", "s"], ["y"]))
    np.savez(tmp_path / "feeds.npz", image_embeddings=np.zeros((1, 2), np.float32))
    cases: list[tuple[int, str, tuple[str | Path, ...]]] = [
        (4, "is fp16 already", (low, "--fp16")),
        (4, "carries no record", (foreign, "--fp16")),
        (4, "is quantised", (int8, "--fp16")),
        (4, "cannot be read", (tmp_path / "missing.onnx", "--fp16")),
        (2, "is missing", (source, "--fp16", "--feeds", tmp_path / "feeds.npz")),
        (2, "Name one precision", (source,)),
        (2, "Name one precision", (source, "--fp16", "--bf16")),
        (2, "--io fp16 does not go with", (source, "--bf16", "--io", "fp16")),
        (2, "is not below 1", (source, "--fp16", "--max-flips", "3")),
        (2, "is below 1", (source, "--fp16", "--margin", "0")),
        (2, "Leave one of them out", (source, "--fp16", "--all-products", "--max-flips", "0.1")),
    ]
    for code, message, words in cases:
        found, _, err = call(capsys, "convert", *words, "--out", tmp_path / "out")
        assert (found, is_one_clear_line(err)) == (code, True), err
        assert message in err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_command_shows_what_it_did(export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = export().artifact.path
    code, out, err = call(capsys, "convert", source, "--fp16", "--out", tmp_path)
    assert code == 0, err
    assert "nodes, normalisation" in out
    assert out.count("0 failed") == 3
    file = tmp_path / "sam_tiny.decoder.fp16.onnx"
    assert "% float16" in call(capsys, "inspect", file)[1]
    report = json.loads(call(capsys, "validate", file, "--sweep", "quick", "--json")[1])
    counts = [len(comparison["cases"]) for comparison in report["comparisons"]]
    assert counts[0] > counts[1] == counts[2] > 0, "the oracle is asked of small cases"


def test_export_and_conversion_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "onnx", "--model", "sam_tiny", "--fp16", "--no-validate", "--out", tmp_path, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["converted"]["artifact"]["parent"] == report["artifact"]["sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"sam_tiny.decoder.{name}" for name in ("onnx", "onnx.json", "fp16.onnx", "fp16.onnx.json")
    }
