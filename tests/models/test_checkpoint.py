from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import Arrays
from torch import Tensor

from samdec_export.core.errors import CheckpointError, UsageError
from samdec_export.models.checkpoint import LoadedModel, load_model
from samdec_export.models.registry import MODELS
from samdec_export.models.sam.decoder import SamDecoder, seed_weights

ENCODERS = {
    name: {spec.encoder.key: torch.zeros(spec.encoder.shape)}
    for name, spec in MODELS.items()
    if spec.encoder and spec.needs_checkpoint
}


def state(model: LoadedModel) -> dict[str, Tensor]:
    return dict(model.decoder.state_dict())


def same(one: LoadedModel, other: LoadedModel) -> bool:
    return all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())


@pytest.fixture(scope="module")
def full() -> dict[str, Tensor]:
    """A full-size decoder's weights."""
    model = SamDecoder(MODELS["sam_b"].architecture)
    with torch.no_grad():
        seed_weights(model, 5)
    return dict(model.state_dict())


@pytest.mark.parametrize("name", ENCODERS)
def test_the_model_is_told_by_its_image_encoder(tmp_path: Path, full: dict[str, Tensor], name: str) -> None:
    torch.save({**full, **ENCODERS[name]}, tmp_path / "sam_of_another_name.pt")
    loaded = load_model(tmp_path / "sam_of_another_name.pt")
    assert loaded.spec.name == name
    assert load_model(tmp_path / "sam_of_another_name.pt", MODELS[name].alias).spec.name == name
    assert loaded.grid == 64
    assert all(torch.equal(tensor, full[key]) for key, tensor in state(loaded).items())


def test_the_grid_is_told_by_the_stored_positions(tmp_path: Path, full: dict[str, Tensor]) -> None:
    positions = {"image_encoder.pos_embed": torch.zeros(1, 32, 32, 768)}
    torch.save({**full, **ENCODERS["sam_b"], **positions}, tmp_path / "c.pt")
    assert load_model(tmp_path / "c.pt").grid == 32


def test_a_decoder_alone_needs_a_name(tmp_path: Path, full: dict[str, Tensor]) -> None:
    torch.save(full, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"no known image encoder.*model \(sam_b, sam_l, sam_h, mobile_sam\)"):
        load_model(tmp_path / "c.pt")
    assert load_model(tmp_path / "c.pt", "vit_l").spec.name == "sam_l"
    with pytest.raises(UsageError, match=r"no model called 'sam_x'.*Did you mean sam_"):
        load_model(tmp_path / "c.pt", "sam_x")


def test_a_name_that_contradicts_the_checkpoint_is_refused(tmp_path: Path, full: dict[str, Tensor]) -> None:
    torch.save({**full, **ENCODERS["sam_h"]}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"is sam_h .* not sam_b"):
        load_model(tmp_path / "c.pt", "sam_b")


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], Any]] = {
    "bare": torch.save,
    "ultralytics": lambda tensors, path: torch.save({"model": tensors, "epoch": 3}, path),
    "legacy": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save_file,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_container_gives_the_same_bits(tmp_path: Path, tiny: LoadedModel, writer: str) -> None:
    WRITERS[writer](state(tiny), tmp_path / "c.ckpt")
    loaded = load_model(tmp_path / "c.ckpt")
    assert same(loaded, tiny)
    assert loaded.checkpoint.weights_sha256 == tiny.checkpoint.weights_sha256
    assert loaded.spec.name == "sam_tiny"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_hugging_face_files_and_folders(
    tmp_path: Path, huggingface_golden: Arrays, name: str, whole_folder: bool
) -> None:
    tensors = huggingface_tensors(huggingface_golden)
    (safetensors.torch.save_file if name.endswith("safetensors") else torch.save)(tensors, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    loaded = load_model(tmp_path if whole_folder else tmp_path / name)
    assert loaded.checkpoint.layout == "huggingface"
    assert loaded.grid == 8


def shard(tensors: dict[str, Tensor], folder: Path, name: str, place: str = "") -> Path:
    """The weights in two files and an index of them, as save_pretrained writes what is above its limit."""
    stem, dot, ending = name.partition(".")
    save = safetensors.torch.save_file if ending == "safetensors" else torch.save
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number in (1, 2):
        file = f"{stem}-{number:05}-of-00002{dot}{ending}"
        part = {key: tensors[key] for key in names[number - 1 :: 2]}
        save(part, folder / file)
        placed |= dict.fromkeys(part, place + file)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder / f"{name}.index.json"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face_shards(tmp_path: Path, huggingface_golden: Arrays, name: str) -> None:
    tensors = huggingface_tensors(huggingface_golden)
    torch.save(tensors, tmp_path / "whole.bin")
    (tmp_path / "shards").mkdir()
    index = shard(tensors, tmp_path / "shards", name)
    whole, loaded = load_model(tmp_path / "whole.bin"), load_model(tmp_path / "shards")
    assert loaded.checkpoint.weights_sha256 == whole.checkpoint.weights_sha256
    assert loaded.checkpoint.file == f"{name}.index.json"
    assert load_model(index).checkpoint == loaded.checkpoint
    digest = loaded.checkpoint.sha256
    changed = sorted(tensors)[0]
    shard({**tensors, changed: tensors[changed] + 1}, tmp_path / "shards", name)
    assert load_model(index).checkpoint.sha256 != digest


def test_shards_that_are_not_whole(tmp_path: Path, huggingface_golden: Arrays) -> None:
    tensors = huggingface_tensors(huggingface_golden)
    index = shard(tensors, tmp_path, "model.safetensors", place="../elsewhere/")
    assert load_model(index).grid == 8, "shards are beside their index, whatever it says"
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json names 2 files, and 1 are not beside it: model-00002"):
        load_model(tmp_path)
    for content in ("", "{}", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["x"]}}'):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="is no index of shards, or is damaged"):
            load_model(tmp_path)
    index.write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="names 0 files"):
        load_model(tmp_path)


def test_an_empty_name_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no model called ''"):
        load_model(None, "")


def huggingface_tensors(golden: Arrays) -> dict[str, Tensor]:
    prefix = "weights/"
    return {k.removeprefix(prefix): torch.from_numpy(v) for k, v in golden.items() if k.startswith(prefix)}


def test_hugging_face_weights_give_hugging_faces_masks(tmp_path: Path, huggingface_golden: Arrays) -> None:
    torch.save(huggingface_tensors(huggingface_golden), tmp_path / "c.bin")
    decoder = load_model(tmp_path / "c.bin").decoder
    golden = {name: torch.from_numpy(array) for name, array in huggingface_golden.items()}
    coords = torch.cat([golden["point_coords"], torch.zeros(3, 1, 2)], dim=1)  # it adds a padding point itself
    labels = torch.cat([golden["point_labels"], -torch.ones(3, 1, dtype=torch.int64)], dim=1)
    encoder = decoder.prompt_encoder
    masks, iou = decoder.mask_decoder(
        golden["image_embeddings"],
        encoder.dense_pe(8, 8),
        encoder.embed_points(coords, labels, 8, 8),
        encoder.no_mask(),
        multimask_output=True,
    )
    torch.testing.assert_close(masks, golden["masks"][0], rtol=0, atol=3e-6)
    torch.testing.assert_close(iou, golden["iou"][0], rtol=0, atol=3e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_checkpoints_are_upcast(tmp_path: Path, tiny: LoadedModel, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state(tiny).items()}, tmp_path / "c.pt")
    for name, tensor in state(load_model(tmp_path / "c.pt")).items():
        assert torch.equal(tensor, state(tiny)[name].to(dtype).float())


def test_every_mismatch_is_listed_in_one_error(tmp_path: Path, tiny: LoadedModel) -> None:
    tensors = state(tiny)
    del tensors["mask_decoder.iou_token.weight"]
    tensors["mask_decoder.mask_tokens.weight"] = torch.zeros(5, 32)
    tensors["mask_decoder.hf_token.weight"] = torch.zeros(1, 32)
    tensors["prompt_encoder.no_mask_embed.weight"] = torch.full((1, 32), torch.nan)
    tensors["prompt_encoder.not_a_point_embed.weight"] = torch.zeros(1, 32, dtype=torch.int8)
    torch.save(tensors, tmp_path / "c.pt")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "c.pt", "sam_tiny")
    for part in (
        "nearest to sam_tiny",
        "5 tensors do not fit",
        "missing mask_decoder.iou_token.weight (1, 32)",
        "mask_decoder.mask_tokens.weight has shape (5, 32), not (4, 32)",
        "unknown mask_decoder.hf_token.weight (1, 32)",
        "prompt_encoder.no_mask_embed.weight holds NaN or Inf",
        "prompt_encoder.not_a_point_embed.weight is int8, not floating point",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["layer1.0.conv1.weight", "fc.bias"], "resembles no family"),
        (["sam_mask_decoder.iou_token.weight", "memory_encoder.x"], "looks like SAM 2"),
        (["module.mask_decoder.iou_token.weight"], "behind a prefix"),
        (["image_encoder.pos_embed"], "the decoder is needed too"),
    ],
)
def test_another_network_is_named_as_such(tmp_path: Path, names: list[str], hint: str) -> None:
    torch.save({name: torch.zeros(3) for name in names}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"another network.*{hint}"):
        load_model(tmp_path / "c.pt")


class Bomb:
    """Creates a file when it is unpickled by anything that runs what it reads."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def truncated(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-2000])


def truncated_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-2000])


def foreign_zip(path: Path, tensors: dict[str, Tensor]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")


NO_MASK = "prompt_encoder.no_mask_embed.weight"

DAMAGED: dict[str, tuple[Callable[[Path, dict[str, Tensor]], Any], str]] = {
    "missing": (lambda path, tensors: None, "does not exist"),
    "directory": (lambda path, tensors: path.mkdir(), "is a folder without"),
    "empty": (lambda path, tensors: path.touch(), "is empty"),
    "truncated": (truncated, "is truncated"),
    "truncated safetensors": (truncated_safetensors, "cannot be read"),
    "zip": (foreign_zip, "is not a checkpoint"),
    "text": (lambda path, tensors: path.write_text("hello\nworld\n"), "is not a checkpoint"),
    "list": (lambda path, tensors: torch.save([1, 2], path), "holds no tensors by name, but an object of type list"),
    "bomb": (lambda path, tensors: torch.save({"model": Bomb(path.parent / "ran")}, path), "nothing in it was run"),
    "raw bomb": (
        lambda path, tensors: path.write_bytes(pickle.dumps(Bomb(path.parent / "ran"))),
        "nothing in it was run",
    ),
    "sparse": (
        lambda path, tensors: torch.save({**tensors, NO_MASK: tensors[NO_MASK].to_sparse()}, path),
        "1 tensor does not fit: .*no_mask_embed.weight is sparse",
    ),
    "positions": (
        lambda path, tensors: torch.save({**tensors, "image_encoder.pos_embed": torch.zeros(1, 0, 0, 5)}, path),
        "is no square grid",
    ),
    "pointer": (lambda path, tensors: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "no iou token": (
        lambda path, tensors: torch.save({k: v for k, v in tensors.items() if "iou_token" not in k}, path),
        r"nearest to sam_tiny .* missing mask_decoder\.iou_token",
    ),
    "module": (lambda path, tensors: torch.save(torch.nn.Linear(2, 2), path), "nothing in it was run"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_checkpoint_is_refused_and_not_run(tmp_path: Path, tiny: LoadedModel, kind: str) -> None:
    write, message = DAMAGED[kind]
    write(tmp_path / "c.pt", state(tiny))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()
