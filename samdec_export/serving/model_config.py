"""Triton's model configuration, made as Triton's own protobuf message so that no field can be misspelt."""

from __future__ import annotations

import struct
from typing import Any, Final

from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.dtypes import DTYPES
from samdec_export.core.errors import DependencyError
from samdec_export.core.signature import TensorSpec, axis_size
from samdec_export.serving.model import FILE_NAMES, ServedBackend, ServedModel, WarmUp
from samdec_export.serving.options import ServedKind, ServingOptions

__all__ = ["config_text", "warm_up_files"]

PLATFORMS: Final[dict[ServedBackend, str]] = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
KINDS: Final[dict[ServedKind, str]] = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}


def config_text(model: ServedModel, options: ServingOptions) -> str:
    """Return the text of `config.pbtxt`.

    Source: the ModelConfig message of Triton Inference Server, as tritonclient ships it.

    Raises:
        DependencyError: tritonclient is not installed.
    """
    from google.protobuf import text_format

    messages = _messages()
    kind: ServedKind = "gpu" if model.backend == "tensorrt" else options.kind
    config = messages.ModelConfig(
        name=model.name,
        platform=PLATFORMS[model.backend],
        backend=model.backend,
        default_model_filename=FILE_NAMES[model.backend],
        max_batch_size=model.max_batch_size,
        input=[_tensor(model, spec) for spec in model.signature.inputs],
        output=[_tensor(model, spec) for spec in model.signature.outputs],
        instance_group=[{"count": options.instances, "kind": KINDS[kind], "profile": _profiles(model.profiles)}],
        version_policy={"all": {}} if options.versions == "all" else {"latest": {"num_versions": 1}},
        model_warmup=[_warm_up(model, warm_up) for warm_up in model.warm_ups()],
    )
    if model.max_batch_size > 1:
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay
        config.dynamic_batching.SetInParent()  # present though empty: that is what turns batching on
    if model.backend == "onnxruntime" and kind != "cpu":
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"  # fp32 was compared as fp32; ONNX Runtime has TF32 on by default
    text: str = text_format.MessageToString(config)
    return text


def warm_up_files(model: ServedModel) -> dict[str, bytes]:
    """Contents of warm-up inputs that zeros do not do for, by the names that the configuration gives them.

    An input that holds an image's size is the only one: with zeros there would be no mask to return.
    """
    return {
        _file_name(spec, warm_up): struct.pack(
            f"<{len(spec.extent)}f", *(axis_size(axis, warm_up.sizes) for axis in spec.extent)
        )
        for warm_up in model.warm_ups()
        for spec in model.signature.inputs
        if spec.content == "image_size"
    }


def _tensor(model: ServedModel, spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": DTYPES[spec.dtype].triton, "dims": model.dims(spec)}


def _profiles(profiles: tuple[Profile, ...]) -> list[str]:
    """Return the profiles of an engine that an instance loads; the first one needs no word."""
    return [str(number) for number in range(len(profiles))] if len(profiles) > 1 else []


def _warm_up(model: ServedModel, warm_up: WarmUp) -> dict[str, Any]:
    inputs = {}
    for spec in model.signature.inputs:
        shape = spec.concrete(warm_up.sizes)[1 if model.batch_axis else 0 :]
        filled = {"input_data_file": _file_name(spec, warm_up)} if spec.content == "image_size" else {"zero_data": True}
        inputs[spec.name] = {"data_type": DTYPES[spec.dtype].triton, "dims": shape, **filled}
    items = warm_up.sizes[model.batch_axis.name] if model.batch_axis else 1  # 1 is how Triton writes "no batch"
    return {"name": warm_up.name, "batch_size": items, "inputs": inputs}


def _file_name(spec: TensorSpec, warm_up: WarmUp) -> str:
    return f"{spec.name}.{warm_up.name}"


def _messages() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # RuntimeError: tritonclient is there, its extra [grpc] is not
        raise DependencyError(
            "tritonclient, which holds Triton's own form of config.pbtxt, is not installed.",
            "Install the extra: pip install 'samdec-export[triton]'.",
        ) from error
    return model_config_pb2
