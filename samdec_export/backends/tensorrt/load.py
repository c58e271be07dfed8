"""A plan becomes an engine on the GPU; what it turns out to hold must be what its sidecar says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from samdec_export.backends.tensorrt.api import Api, Context, PlanEngine, RtxApi, RtxRuntimeConfig, load
from samdec_export.backends.tensorrt.engine_file import EngineFile, EngineRecord
from samdec_export.backends.tensorrt.messages import Journal, journal, parser_errors
from samdec_export.backends.tensorrt.options import Profile
from samdec_export.core.dtypes import DTYPES
from samdec_export.core.errors import EngineError
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.core.signature import Signature

__all__ = ["LoadedEngine", "load_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """An engine on the GPU.

    Args:
        engine: TensorRT's object.
        flavour: TensorRT or TensorRT-RTX.
        api: Its module.
        signature: What it takes and returns.
        profiles: The ranges that it was tuned for.
    """

    engine: PlanEngine
    flavour: EngineName
    api: Api
    signature: Signature
    profiles: Sequence[Profile]

    @property
    def name(self) -> str:
        """Return a name such as `TensorRT-RTX 1.7.1`."""
        return f"{ENGINES[self.flavour].title} {self.api.__version__}"

    def context(self) -> Context:
        """Return what runs it. TensorRT-RTX compiles a shape's kernels before its first run, not beside later ones.

        Raises:
            EngineError: There is not enough memory, or TensorRT refuses for another reason.
        """
        mark = len(journal(self.api).records)
        if self.flavour == "rtx":
            config = cast(RtxRuntimeConfig, self.engine.create_runtime_config())
            eager = cast(RtxApi, self.api).DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context()
        if context is None:
            raise self.refusal("to make an execution context", mark)
        return context

    def refusal(self, what: str, mark: int) -> EngineError:
        """Return an error of what TensorRT refuses, with what it said since the journal's record `mark`."""
        return EngineError(
            f"{self.name} refuses {what}: {_reasons(journal(self.api), mark)}.",
            "Check the free memory of the GPU; build the engine again with samdec-export trt.",
        )


def load_engine(file: EngineFile) -> LoadedEngine:
    """Load an engine that was checked against its sidecar and this machine; into one without weights these are put.

    Raises:
        DependencyError: Its TensorRT cannot be imported.
        EngineError: TensorRT refuses the plan, it is not what the sidecar says, or its weights are not to be found.
    """
    record = file.record
    weights = _weights(file) if record.settings.get("strip_weights") else None
    api = load(record.engine)
    notes = journal(api)
    mark = len(notes.records)
    runtime = api.Runtime(notes.logger)
    if record.settings.get("version_compat"):
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(file.path.read_bytes())
    if engine is None:
        raise EngineError(
            f"{ENGINES[record.engine].title} {api.__version__} refuses {file.path}: {_reasons(notes, mark)}.",
            "Build it again with samdec-export trt.",
        )
    _check(file, engine)
    if weights:
        _refit(api, engine, weights, notes)
    signature = record.source.signature
    return LoadedEngine(engine=engine, flavour=record.engine, api=api, signature=signature, profiles=record.profiles)


def _weights(file: EngineFile) -> Path:
    found = file.onnx
    if found is None:
        raise EngineError(
            f"{file.path} was built without weights, and {file.record.onnx}, which has them, does not lie beside it.",
            "Put the ONNX file beside it, or build without {strip_weights}.",
        )
    return found


def _refit(api: Api, engine: PlanEngine, weights: Path, notes: Journal) -> None:
    mark = len(notes.records)
    refitter = api.Refitter(engine, notes.logger)
    parser = api.OnnxParserRefitter(refitter, notes.logger)
    if not (parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine()):
        reasons = "; ".join(parser_errors(parser)) or _reasons(notes, mark)
        raise EngineError(f"The weights of {weights} do not go into the engine: {reasons}.", "Build it again.")


def _check(file: EngineFile, engine: PlanEngine) -> None:
    """Raise unless names, directions and types are the sidecar's, and no input is a size: those lie on the host.

    Raises:
        EngineError: They are not.
    """
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        found.append((name, engine.get_tensor_mode(name).name, engine.get_tensor_dtype(name).name))
    wanted = _described(file.record)
    if sorted(found) != sorted(wanted):
        raise EngineError(
            f"{file.path} takes and returns {found}, and its sidecar says {wanted}.",
            "Build it again with samdec-export trt.",
        )
    sizes = [name for name, _, _ in found if engine.is_shape_inference_io(name)]
    if sizes:
        raise EngineError(f"{file.path} takes sizes as inputs: {', '.join(sizes)}.", "Use another graph contract.")


def _described(record: EngineRecord) -> list[tuple[str, str, str]]:
    signature = record.source.signature
    inputs = [(spec.name, "INPUT", DTYPES[spec.dtype].tensorrt) for spec in signature.inputs]
    return inputs + [(spec.name, "OUTPUT", DTYPES[spec.dtype].tensorrt) for spec in signature.outputs]


def _reasons(notes: Journal, mark: int) -> str:
    return "; ".join(reason.rstrip(". ") for reason in notes.errors(mark)) or "no reason given"
