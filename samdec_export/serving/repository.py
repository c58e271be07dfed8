"""A folder as Triton reads it: a configuration for each model, a numbered folder for each version of it.

    README.md, client.py
    sam_b.prompts/config.pbtxt
    sam_b.prompts/1/model.onnx, model.onnx.json
    sam_b.prompts/warmup/...        only where a warm-up request needs more than zeros

Triton looks at folders and, within a model, at those with a number: what else is there is for people.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final, Literal, TypeAlias

from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.dtypes import DTYPES
from samdec_export.core.errors import DependencyError, GraphError
from samdec_export.core.files import sha256
from samdec_export.core.signature import Axis, Dim, Signature, TensorSpec, axis_size
from samdec_export.serving.options import ServedKind, ServingOptions

__all__ = ["ServedFile", "ServedModel", "config_text", "write_guide", "write_model"]

ServedBackend: TypeAlias = Literal["onnxruntime", "tensorrt"]

FILE_NAMES: Final[dict[ServedBackend, str]] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""What Triton's backends call the file of a version."""

PLATFORMS: Final[dict[ServedBackend, str]] = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
KINDS: Final[dict[ServedKind, str]] = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """A file of a model: where it is, the SHA-256 of the bytes that were looked at, and its record."""

    path: Path
    sha256: str
    sidecar: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What every version of a model has in common: `name` is what clients ask for.

    `profiles` are the sizes it takes: of an ONNX file what it was validated over, of an engine what it was built for.
    """

    name: str
    backend: ServedBackend
    signature: Signature
    profiles: tuple[Profile, ...]

    @property
    def batch_axis(self) -> Dim | None:
        """Return the dynamic axis that every input and output starts with; None where they do not share one.

        Triton puts requests together along the first axis of all tensors, so one tensor without it rules that out.
        """
        firsts: set[Axis] = {spec.shape[0] for spec in self.signature.tensors}
        first = firsts.pop()
        return first if not firsts and isinstance(first, Dim) else None

    @property
    def max_batch_size(self) -> int:
        """Return the most items of a batch; 0 where requests cannot be put together."""
        return max((dim.max for dim in self._batch_ranges()), default=0)

    @property
    def min_batch_size(self) -> int:
        """Return the fewest items of a batch; 0 where requests cannot be put together."""
        return min((dim.min for dim in self._batch_ranges()), default=0)

    def _batch_ranges(self) -> list[Dim]:
        axis = self.batch_axis
        return [dim for profile in self.profiles for dim in profile if axis and dim.name == axis.name]

    def tensor(self, spec: TensorSpec) -> dict[str, Any]:
        """Return a tensor as Triton writes it: -1 for a size that varies, without the axis of a batch."""
        shape = spec.shape[1:] if self.batch_axis else spec.shape
        dims = [axis if isinstance(axis, int) else -1 for axis in shape]
        return {"name": spec.name, "data_type": DTYPES[spec.dtype].triton, "dims": dims}

    def warm_ups(self) -> dict[str, Mapping[str, int]]:
        """Return the requests to make before a model counts as ready: sizes by name.

        They are the usual sizes of each profile, and the same with a whole batch.
        """
        axis = self.batch_axis
        found: dict[str, Mapping[str, int]] = {}
        for profile in self.profiles:
            usual = {dim.name: dim.opt for dim in profile}
            full = {dim.name: dim.max if axis and dim.name == axis.name else dim.opt for dim in profile}
            for sizes in (usual, full):
                found.setdefault(",".join(f"{key}={size}" for key, size in sizes.items()) or "fixed", sizes)
        return found


def config_text(model: ServedModel, options: ServingOptions) -> str:
    """Return the text of `config.pbtxt`, by Triton's own protobuf message: no field can be misspelt.

    Source: the ModelConfig message of Triton Inference Server, as tritonclient ships it.

    Raises:
        DependencyError: tritonclient is not installed.
    """
    from google.protobuf import text_format

    try:
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # RuntimeError: tritonclient is there, its extra [grpc] is not
        raise DependencyError(
            "tritonclient, which holds Triton's own form of config.pbtxt, is not installed.",
            "Install the extra: pip install 'samdec-export[triton]'.",
        ) from error
    kind: ServedKind = "gpu" if model.backend == "tensorrt" else options.kind
    # The profiles of an engine that an instance loads; the first one needs no word.
    profiles = [str(number) for number in range(len(model.profiles))] if len(model.profiles) > 1 else []
    config = model_config_pb2.ModelConfig(
        name=model.name,
        platform=PLATFORMS[model.backend],
        backend=model.backend,
        default_model_filename=FILE_NAMES[model.backend],
        max_batch_size=model.max_batch_size,
        input=[model.tensor(spec) for spec in model.signature.inputs],
        output=[model.tensor(spec) for spec in model.signature.outputs],
        instance_group=[{"count": options.instances, "kind": KINDS[kind], "profile": profiles}],
        version_policy={"all": {}} if options.versions == "all" else {"latest": {"num_versions": 1}},
        model_warmup=[_warm_up(model, name, sizes) for name, sizes in model.warm_ups().items()],
    )
    if model.max_batch_size > 1:
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay
        config.dynamic_batching.SetInParent()  # present though empty: that is what turns batching on
    if model.backend == "onnxruntime" and kind != "cpu":
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"  # fp32 was compared as fp32; ONNX Runtime has TF32 on by default
    text: str = text_format.MessageToString(config)
    return text


def _warm_up(model: ServedModel, name: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    inputs = {}
    for spec in model.signature.inputs:
        shape = spec.concrete(sizes)[1 if model.batch_axis else 0 :]
        filled = {"input_data_file": f"{spec.name}.{name}"} if spec.content == "image_size" else {"zero_data": True}
        inputs[spec.name] = {"data_type": DTYPES[spec.dtype].triton, "dims": shape, **filled}
    items = sizes[model.batch_axis.name] if model.batch_axis else 1  # 1 is how Triton writes "no batch"
    return {"name": name, "batch_size": items, "inputs": inputs}


def write_model(folder: Path, model: ServedModel, versions: Sequence[ServedFile], options: ServingOptions) -> None:
    """Write a model into `folder`, which is made: versions are numbered from 1 in the order given.

    A file and its record stay what they are, so each version can be validated or inspected where it lies.

    Raises:
        GraphError: A file was changed while it was copied.
        DependencyError: tritonclient is not installed.
        OSError: A file cannot be read or written.
    """
    folder.mkdir()
    (folder / "config.pbtxt").write_text(config_text(model, options), encoding="utf-8")
    for number, version in enumerate(versions, start=1):
        target = folder / str(number) / FILE_NAMES[model.backend]
        target.parent.mkdir()
        shutil.copyfile(version.path, target)
        if sha256(target) != version.sha256:
            raise GraphError(f"{version.path} was changed while it was copied.", "Bundle it again.")
        sidecar = target.with_name(f"{target.name}.json")
        sidecar.write_text(json.dumps(dict(version.sidecar), indent=2) + "\n", encoding="utf-8")
    # An input that holds an image's size is the only one that zeros do not do for: there would be no mask to return.
    for spec in (spec for spec in model.signature.inputs if spec.content == "image_size"):
        (folder / "warmup").mkdir(exist_ok=True)
        for name, sizes in model.warm_ups().items():
            extent = [axis_size(axis, sizes) for axis in spec.extent]
            (folder / "warmup" / f"{spec.name}.{name}").write_bytes(struct.pack(f"<{len(extent)}f", *extent))


def write_guide(folder: Path, models: Sequence[ServedModel], flags: Sequence[str], notes: Sequence[str]) -> None:
    """Write how to start the server and ask it, and the example client, which finds the records beside it.

    `flags` are what the server must be started with, `notes` sentences on what the files need.
    """
    rows = [
        f"| `{model.name}` | {model.backend} | {model.max_batch_size or 'none'} | "
        + ", ".join(f"`{spec.name}`" for spec in model.signature.inputs)
        + " |"
        for model in models
    ]
    packaged = resources.files("samdec_export.serving")
    text = Template(packaged.joinpath("templates/README.md").read_text(encoding="utf-8")).substitute(
        models="\n".join(rows),
        first=models[0].name,
        flags="".join(f" \\\n        {flag}" for flag in flags),
        notes="".join(f"- {note}\n" for note in notes),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "client.py").write_text(packaged.joinpath("client.py").read_text(encoding="utf-8"), encoding="utf-8")
