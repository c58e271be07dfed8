"""An engine build: a typed ONNX file goes in, a plan whose precision was checked comes out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdec_export.backends.tensorrt.engine_file import EngineFile, EngineRecord, publish_engine
from samdec_export.backends.tensorrt.options import DEFAULT_TARGETS, RTX_TARGETS, BuildOptions, Profile
from samdec_export.core import interrupts
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import FORMATS, Precision
from samdec_export.core.errors import DependencyError, EngineError, UsageError
from samdec_export.core.files import staging
from samdec_export.core.log import log, step
from samdec_export.core.packages import ENGINES, OURS, EngineName, tool_versions
from samdec_export.core.signature import Signature

if TYPE_CHECKING:
    from samdec_export.backends.machine import Machine
    from samdec_export.backends.tensorrt.builder import BuiltEngine, EngineTensor

__all__ = [
    "BuildPlan",
    "EngineBuilt",
    "build",
    "check_options",
    "check_precision",
    "choose_engine",
    "plan_build",
    "resolve",
]

PRODUCTS = frozenset({"MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM"})
"""TensorRT's layers that multiply matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The engine that builds, its settings with targets, and the machine that it builds on."""

    engine: EngineName
    wanted: BuildOptions
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuilt:
    """A published engine and the ONNX file that it was built from."""

    engine: EngineFile
    onnx: Path

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's content, where the files are, and the size of the plan."""
        size = self.engine.path.stat().st_size
        return {
            "path": str(self.engine.path),
            "bytes": size,
            "onnx": str(self.onnx),
            "artifact": self.engine.to_json(),
        }


def plan_build(source: Artifact, wanted: BuildOptions, precision: Precision) -> BuildPlan:
    """Return what would be built, checked as far as it can be before anything is converted.

    Args:
        source: The ONNX file; it may still be converted.
        wanted: Settings.
        precision: What the file is when the engine is built.

    Raises:
        UsageError: An option does not go with the engine or the graph.
        EngineError: TensorRT would refuse the graph.
        DependencyError: No engine can build here.
    """
    with interrupts.deferred():
        from samdec_export.backends.machine import look
        from samdec_export.backends.tensorrt.lint import check_profiles, lint_for_engine

    machine = look()
    engine = choose_engine(wanted.engine, machine)
    wanted = replace(wanted, targets=_targets(wanted, engine, machine))
    check_options(engine, wanted, precision, machine)
    check_profiles(source.record.signature, wanted.profiles)
    lint_for_engine(source.path, source.record.signature)
    return BuildPlan(engine=engine, wanted=wanted, machine=machine)


def build(typed: Artifact, plan: BuildPlan, out: Path) -> EngineBuilt:
    """Build an engine, and check the precision that it got.

    Args:
        typed: The ONNX file, in its precision.
        plan: As `plan_build` returns it.
        out: The folder to write to.

    Raises:
        EngineError: TensorRT refuses the graph, or its precision is not that of the file. Nothing is left in `out`.
    """
    with interrupts.deferred():
        from samdec_export.backends.tensorrt.builder import build_engine
        from samdec_export.backends.tensorrt.lint import check_turing, lint_for_engine

    signature = typed.record.signature
    for cost in lint_for_engine(typed.path, signature):
        log.warning("%s", cost)
    check_turing(typed, plan.wanted.targets)
    resolved = resolve(plan.wanted, plan.engine, plan.machine, signature)
    built = build_engine(typed.path, plan.engine, signature, resolved)
    check_precision(built, typed)
    record = _record(built, plan.engine, plan.machine, resolved, typed)
    if resolved.timing_cache:
        _write_cache(resolved.timing_cache, built.timing_cache)
    with staging(out) as scratch:
        draft = scratch / "draft.engine"
        draft.write_bytes(built.plan)
        published = publish_engine(draft, record, out)
    return EngineBuilt(engine=published, onnx=typed.path)


def choose_engine(asked: EngineName | None, machine: Machine) -> EngineName:
    """Return what was asked for, or what can build here; TensorRT before TensorRT-RTX where both can.

    Raises:
        DependencyError: Neither can, or what was asked for cannot.
    """
    candidates: tuple[EngineName, ...] = (asked,) if asked else ("tensorrt", "rtx")
    obstacles = {engine: machine.obstacle(engine) for engine in candidates}
    for engine, obstacle in obstacles.items():
        if not obstacle:
            if asked is None:
                log.info("Engine: %s %s, which can build here.", engine, machine.versions[engine])
            return engine
    raise DependencyError(
        f"No engine can be built here: {'; '.join(obstacles.values())}.",
        "TensorRT-RTX needs no GPU to build: pip install 'samdec-export[rtx]'.",
    )


def check_options(engine: EngineName, wanted: BuildOptions, precision: Precision, machine: Machine) -> None:
    """Raise unless the engine has every option that is set.

    Raises:
        UsageError: It has not; better than a flag without effect.
    """
    for refused, message, advice in _objections(engine, wanted, precision, machine):
        if refused:
            raise UsageError(message, advice)


def _objections(
    engine: EngineName, wanted: BuildOptions, precision: Precision, machine: Machine
) -> Iterator[tuple[bool, str, str]]:
    if engine == "tensorrt":
        yield (
            bool(wanted.targets),
            "TensorRT builds for the GPU that it runs on: it has no {targets}.",
            "Leave it out, or build with {engine=rtx}.",
        )
        return
    yield (
        wanted.timing_cache is not None,
        "TensorRT-RTX times no kernels when it builds: {timing_cache} has no effect.",
        "Leave it out, or use {engine=tensorrt}.",
    )
    yield (
        wanted.hardware_compat,
        "TensorRT-RTX builds for the GPU generations it is given: {hardware_compat} has no effect.",
        "Name them with {targets}, or use {engine=tensorrt}.",
    )
    yield (
        "sm75" in wanted.targets and precision != "fp16",
        f"TensorRT-RTX builds for sm75 in fp16 only, and this is {precision}.",
        "Add {precision=fp16}, or leave sm75 out of {targets}.",
    )
    for name in ("version_compat", "strip_weights", "refit"):
        yield (
            getattr(wanted, name) and machine.gpu is None,
            f"TensorRT-RTX needs a GPU for {{{name}}}, and there is none here.",
            "Leave it out, or build on a machine with a GPU.",
        )


def resolve(wanted: BuildOptions, engine: EngineName, machine: Machine, signature: Signature) -> BuildOptions:
    """Return engine, targets and profiles in full: what was left out has its usual value."""
    ranges = {dim.name: dim for dim in signature.dims}
    profiles: tuple[Profile, ...] = tuple(
        tuple(
            (
                ranges | {dim.name: replace(ranges[dim.name], min=dim.min, opt=dim.opt, max=dim.max) for dim in profile}
            ).values()
        )
        for profile in wanted.profiles or ((),)
    )
    return replace(wanted, engine=engine, targets=_targets(wanted, engine, machine), profiles=profiles)


def _targets(wanted: BuildOptions, engine: EngineName, machine: Machine) -> tuple[str, ...]:
    """Return what was asked for, or the generation of the GPU here, or the usual ones; none for TensorRT."""
    if engine != "rtx" or wanted.targets:
        return wanted.targets
    gpu = machine.gpu
    targets = (gpu.target,) if gpu and gpu.target in RTX_TARGETS else DEFAULT_TARGETS
    reason = f"the {gpu.name} here" if gpu and gpu.target in targets else "without a GPU of theirs here"
    log.info("Targets: %s (%s).", ", ".join(targets), reason)
    return targets


def check_precision(built: BuiltEngine, source: Artifact) -> None:
    """Raise unless TensorRT's network multiplies matrices in the precision of the file, but for what was kept.

    Raises:
        EngineError: It does not, or a normalisation is in fp16.
    """
    if unsafe := [text for text in built.warnings if "layernorm" in text.lower() and "fp16" in text.lower()]:
        raise EngineError(
            f"{source.path}: TensorRT warns of normalisation in fp16: {unsafe[0]}",
            "Convert the fp32 file without {protect=False}.",
        )
    record = source.record
    products = [layer for layer in built.layers if layer.type in PRODUCTS]
    wanted = FORMATS[record.precision].tensorrt
    stray = [layer for layer in products if layer.dtype != wanted and layer.node not in record.kept]
    if stray or not any(layer.dtype == wanted for layer in products):
        named = ", ".join(f"{layer.node} ({layer.dtype})" for layer in stray[:3]) or "all of them"
        raise EngineError(
            f"{source.path}: {len(stray)} of {len(products)} matrix products would not be computed in "
            f"{record.precision}, and its record keeps none of these: {named}.",
            "Convert the fp32 file again; {keep_fp32} is how a node is kept on purpose.",
        )


def _record(
    built: BuiltEngine, engine: EngineName, machine: Machine, resolved: BuildOptions, typed: Artifact
) -> EngineRecord:
    targets = resolved.targets or ((machine.gpu.target,) if machine.gpu else ())
    return EngineRecord(
        engine=engine,
        version=built.version,
        targets=targets,
        onnx=typed.path.name,
        onnx_sha256=typed.sha256,
        settings=resolved.settings,
        profiles=resolved.profiles,
        tensors=[_tensor(tensor) for tensor in built.tensors],
        histogram=built.histogram,
        warnings=built.warnings,
        seconds=round(built.seconds, 3),
        tools=tool_versions(OURS, *ENGINES[engine].packages),
        source=typed.record,
    )


def _tensor(tensor: EngineTensor) -> dict[str, Any]:
    return {"name": tensor.name, "kind": tensor.kind, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _write_cache(path: Path, content: bytes) -> None:
    with step("Writing the timing cache"), staging(path.parent) as scratch:
        draft = scratch / path.name
        draft.write_bytes(content)
        os.replace(draft, path)
