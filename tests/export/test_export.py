from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Arrays, Export, assert_close
from onnx import TensorProto, helper, numpy_helper

from samdec_export import api
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.artifact import Record
from samdec_export.core.errors import GraphError
from samdec_export.core.options import GraphOptions
from samdec_export.export.lint import lint
from samdec_export.export.onnx_file import describe
from samdec_export.models.checkpoint import LoadedModel


@pytest.mark.parametrize("size", [(150, 220), (333, 210)])
@pytest.mark.parametrize("has_mask", [0, 1])
def test_one_meta_file_serves_every_aspect_ratio(
    export: Export, upstream_golden: Arrays, has_mask: int, size: tuple[int, int]
) -> None:
    """The published wheel's exporter freezes the aspect ratio of the example it was traced with."""
    names = ("image_embeddings", "point_coords", "point_labels", "mask_input")
    feeds = {name: upstream_golden[name] for name in names}
    feeds |= {"has_mask_input": np.array([has_mask], np.float32), "orig_im_size": np.array(size, np.float32)}
    outputs = OrtRunner(export(graph="meta").artifact.path).run(feeds)
    key = f"meta_all_{has_mask}_{size[0]}x{size[1]}"
    assert outputs["masks"].shape[-2:] == size
    assert_close(outputs["masks"][..., ::7, ::7], upstream_golden[f"{key}_masks"], atol=2e-5)
    assert_close(outputs["iou_predictions"], upstream_golden[f"{key}_iou"], atol=5e-6)
    assert_close(outputs["low_res_masks"], upstream_golden[f"{key}_low_res"], atol=5e-6)


@pytest.mark.parametrize("masks", ["multi", "single"])
def test_the_decoder_file_is_segment_anythings_decoder(export: Export, upstream_golden: Arrays, masks: str) -> None:
    feeds = {
        "image_embeddings": upstream_golden["image_embeddings"],
        "image_pe": upstream_golden["image_pe"],
        "sparse_prompt_embeddings": upstream_golden["sparse"],
        "dense_prompt_embeddings": upstream_golden["dense"],
    }
    outputs = OrtRunner(export(masks=masks).artifact.path).run(feeds)
    assert_close(outputs["masks"], upstream_golden[f"{masks}_masks"], atol=5e-6)
    assert_close(outputs["iou_predictions"], upstream_golden[f"{masks}_iou"], atol=5e-6)


VARIANTS = [
    ({"graph": "prompts", "mask_input": True, "dynamic_grid": True}, 20),
    ({"graph": "prompts", "masks": "best"}, 19),
    ({"graph": "decoder", "masks": "all", "dynamic_grid": True}, 18),
    ({"graph": "meta", "masks": "best", "dynamic_grid": True}, 17),
]


@pytest.mark.parametrize(("options", "opset"), VARIANTS, ids=str)
def test_every_variant_equals_eager_on_the_whole_sweep(export: Export, options: dict[str, str], opset: int) -> None:
    exported = export(opset=opset, **options)
    assert exported.after.opset == opset
    assert exported.after.nodes < exported.before.nodes
    validated = api.validate(exported.artifact.path, sweep="quick")
    assert validated.result.passed, validated.result.worst
    assert len(validated.result.cases) >= 8


@pytest.mark.usefixtures("traced_afresh")
def test_two_exports_are_byte_identical(export: Export, tmp_path: Path) -> None:
    first = export().artifact
    second = api.export(None, "sam_tiny", out=tmp_path, validate=False).artifact
    assert first.path != second.path
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sidecar.read_bytes() == second.sidecar.read_bytes()


def test_file_and_sidecar_tell_the_same_story(export: Export, tiny: LoadedModel) -> None:
    artifact = export().artifact
    assert artifact.path.name == "sam_tiny.decoder.onnx"
    sidecar = json.loads(artifact.sidecar.read_text())
    record = Record.from_metadata(describe(artifact.path).metadata, artifact.path)
    assert record == artifact.record == Record.from_json(sidecar)
    assert sidecar["sha256"] == artifact.sha256
    assert record.checkpoint.weights_sha256 == tiny.checkpoint.weights_sha256
    assert {"torch", "onnx", "onnxslim", "samdec-export"} <= record.tools.keys()
    assert list(artifact.path.parent.iterdir()) in (
        [artifact.path, artifact.sidecar],
        [artifact.sidecar, artifact.path],
    )


def test_a_file_that_lost_its_sidecar_still_validates(export: Export, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.onnx"
    copy.write_bytes(export().artifact.path.read_bytes())
    assert api.validate(copy, sweep="quick").result.passed


def test_mask_input_belongs_to_the_prompts_graph() -> None:
    with pytest.raises(Exception, match="mask_input is a choice of the prompts graph"):
        GraphOptions(graph="meta", mask_input=True)


def add_tile(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1], np.int64), "repeats"))
    first = model.graph.node[-1]
    output = first.output[0]
    first.output[0] = "before_tile"
    model.graph.node.append(helper.make_node("Tile", ["before_tile", "repeats"], [output]))


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "mask"


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[2].type.tensor_type.shape.dim[0].dim_value = 1


def widen_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def leave_unused(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float64), "left_over"))


def add_custom_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def raise_rank(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([1] * 8 + [-1], np.int64), "rank9_shape")
    flat = numpy_helper.from_array(np.array([1, 32, 8, 8], np.int64), "rank4_shape")
    model.graph.initializer.extend([shape, flat])
    up = helper.make_node("Reshape", ["image_embeddings", "rank9_shape"], ["rank9"])
    down = helper.make_node("Reshape", ["rank9", "rank4_shape"], ["image_again"])
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "image_embeddings":
                node.input[index] = "image_again"
    nodes = [up, down, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "tile": (add_tile, "Tile .*repeat_interleave"),
    "renamed output": (rename_output, "outputs are .*'mask'"),
    "fixed axis": (fix_batch, r"sparse_prompt_embeddings has axes \(1, 'points', 32\)"),
    "float64 input": (widen_input, "image_embeddings is float64, not float32"),
    "unused initialiser": (leave_unused, "initialiser left_over is unused"),
    "float64 constant": (leave_unused, "initialiser left_over is float64"),
    "custom domain": (add_custom_op, r"custom domains \['com.example'\]"),
    "rank 9": (raise_rank, "rank9 has rank 9, above 8"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_lint_notices(export: Export, tmp_path: Path, kind: str) -> None:
    artifact = export().artifact
    model = onnx.load(artifact.path)
    damage, message = BROKEN[kind]
    damage(model)
    onnx.save(model, tmp_path / "broken.onnx")
    lint(artifact.path, artifact.record.signature)
    with pytest.raises(GraphError, match=message):
        lint(tmp_path / "broken.onnx", artifact.record.signature)
