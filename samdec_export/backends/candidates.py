"""What runs a file: one table of backends, and a file with the backend that it runs on.

An engine is compared with its sidecar, and the sidecar with this machine, before TensorRT, CUDA or torch is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from samdec_export.backends.tensorrt.engine_file import EngineFile, open_engine
from samdec_export.backends.tensorrt.index import obstacle
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import PRECISIONS, Precision
from samdec_export.core.errors import DependencyError, UsageError
from samdec_export.core.options import BenchRunner, Provider
from samdec_export.core.signature import Signature

if TYPE_CHECKING:
    from samdec_export.core.runner import Runner

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendName",
    "Candidate",
    "FileKind",
    "Runners",
    "Timed",
    "file_kind",
    "open_candidate",
    "open_runners",
]

BackendName: TypeAlias = BenchRunner | Literal["oracle"]
FileKind: TypeAlias = Literal["onnx", "engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file to judge or to time, and where it runs.

    Args:
        artifact: The file, and the record of the graph that it computes.
        engine: What else is known of it where it is an engine; None for ONNX.
        provider: Where ONNX Runtime runs it where it is ONNX.
    """

    artifact: Artifact
    engine: EngineFile | None = None
    provider: Provider = "cpu"

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """Return the ranges that it takes: one signature, or one for each profile of an engine."""
        signature = self.artifact.record.signature
        profiles = self.engine.record.profiles if self.engine else ()
        return tuple(signature.within(profile) for profile in profiles) or (signature,)

    @property
    def backend(self) -> Backend:
        """Return what runs the file to judge it."""
        if self.engine:
            return BACKENDS["trt"]
        return next(row for row in BACKENDS.values() if row.provider == self.provider)

    @property
    def on_gpu(self) -> bool:
        """Return whether it runs on a GPU."""
        return self.backend.on_gpu

    @property
    def rounding(self) -> Precision:
        """Return how exact it can be: TF32 rounds the factors of fp32 products to as many bits as fp16 has."""
        precision = self.artifact.record.precision
        tf32 = self.engine is not None and self.engine.record.settings.get("tf32")
        return "fp16" if tf32 and precision == "fp32" else precision

    @property
    def onnx(self) -> Path | None:
        """Return the ONNX file: itself, or what an engine was built from if that lies beside it."""
        return self.engine.onnx if self.engine else self.artifact.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A candidate of a benchmark.

    Args:
        candidate: The file, and where it runs.
        threads: Threads within an operator; torch takes its own from the environment.
        module: Loads the module that the file was exported from, a torch.nn.Module: torch is not imported here.
    """

    candidate: Candidate
    threads: int
    module: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A row of BACKENDS.

    Args:
        title: What readers call it.
        files: What it is given: ONNX files, or engines.
        precisions: Those of the files that it can run.
        refusal: Why not the others, as a sentence without its end; empty where it can run all.
        provider: Where ONNX Runtime runs; None for what it does not run.
        on_gpu: It runs on a GPU.
        extras: What `pip install 'samdec-export[...]'` brings it with, one of these; empty where nothing is needed.
        judge: Opens a file whose outputs are compared; None for what only takes times.
        time: Opens a file whose runs are timed; None for what only judges.
    """

    title: str
    files: FileKind
    precisions: tuple[Precision, ...] = PRECISIONS
    refusal: str = ""
    provider: Provider | None = None
    on_gpu: bool = False
    extras: tuple[str, ...] = ()
    judge: Callable[[Candidate], Runner] | None = None
    time: Callable[[Timed], Runner] | None = None


def _judge_in_ort(candidate: Candidate) -> Runner:
    from samdec_export.backends.ort import OrtRunner

    return OrtRunner(candidate.artifact.path, candidate.provider)


def _time_in_ort(timed: Timed) -> Runner:
    from samdec_export.backends.ort import OrtRunner

    return OrtRunner(timed.candidate.artifact.path, threads=timed.threads, arena=True)


def _time_in_ort_cuda(timed: Timed) -> Runner:
    from samdec_export.backends.ort import BoundRunner, OrtRunner

    return BoundRunner(OrtRunner(timed.candidate.artifact.path, "cuda", threads=timed.threads, arena=True))


def _time_eager(timed: Timed) -> Runner:
    from samdec_export.backends.eager import EagerRunner

    return EagerRunner(timed.module(), timed.candidate.artifact.record.signature, whole=True)


def _time_compiled(timed: Timed) -> Runner:
    from samdec_export.backends.eager import EagerRunner

    return EagerRunner.compiled(timed.module(), timed.candidate.artifact.record.signature)


def _judge_in_trt(candidate: Candidate) -> Runner:
    from samdec_export.backends.tensorrt.load import load_engine
    from samdec_export.backends.tensorrt.polygraphy import PolygraphyRunner

    assert candidate.engine is not None
    return PolygraphyRunner(load_engine(candidate.engine))


def _time_in_trt(timed: Timed) -> Runner:
    from samdec_export.backends.tensorrt.load import load_engine
    from samdec_export.backends.tensorrt.zero_copy import ZeroCopyRunner

    assert timed.candidate.engine is not None
    return ZeroCopyRunner(load_engine(timed.candidate.engine))


def _judge_by_oracle(candidate: Candidate) -> Runner:
    from samdec_export.backends.oracle.runner import OracleRunner

    assert candidate.onnx is not None
    return OracleRunner(candidate.onnx)


BACKENDS: Final[dict[BackendName, Backend]] = {
    "ort": Backend(
        title="ONNX Runtime on the CPU",
        files="onnx",
        precisions=("fp32", "fp16"),
        refusal="ONNX Runtime's CPU provider has no bf16 kernels",
        provider="cpu",
        extras=("cpu", "gpu"),
        judge=_judge_in_ort,
        time=_time_in_ort,
    ),
    "ort-cuda": Backend(
        title="ONNX Runtime on the GPU",
        files="onnx",
        provider="cuda",
        on_gpu=True,
        extras=("gpu",),
        judge=_judge_in_ort,
        time=_time_in_ort_cuda,
    ),
    "eager": Backend(title="the module that the file was exported from", files="onnx", time=_time_eager),
    "compile": Backend(title="that module through torch.compile", files="onnx", time=_time_compiled),
    "trt": Backend(
        title="TensorRT and TensorRT-RTX",
        files="engine",
        on_gpu=True,
        extras=("gpu", "rtx"),
        judge=_judge_in_trt,
        time=_time_in_trt,
    ),
    "oracle": Backend(
        title="NumPy, rounded as the types say",
        files="onnx",
        precisions=("fp16", "bf16"),
        refusal="fp32 is rounded the same way everywhere",
        judge=_judge_by_oracle,
    ),
}
"""What is judged is opened by `judge`, what is timed by `time`; a new backend is a module and a row."""


def file_kind(path: Path) -> FileKind:
    """Return what a path is taken for: an engine by its ending, and ONNX otherwise."""
    return "engine" if path.suffix == ".engine" else "onnx"


def open_candidate(path: Path, provider: Provider | None = None) -> Candidate:
    """Return what a path is; that it can run here is checked as far as can be told without loading it.

    Args:
        path: An engine, or an ONNX file.
        provider: Where ONNX Runtime is to run it; None for the CPU.

    Raises:
        UsageError: A provider for an engine.
        EngineError: An engine is not what its sidecar says.
        DependencyError: An engine cannot run on this machine.
        GraphError: An ONNX file cannot be read, or samdec-export did not write it.
    """
    if file_kind(path) == "onnx":
        from samdec_export.backends.ort import require_provider
        from samdec_export.export.onnx_file import open_artifact

        candidate = Candidate(artifact=open_artifact(path), provider=provider or "cpu")
        require_provider(candidate.provider)
        return candidate
    if provider is not None:
        raise UsageError(f"{path} is an engine: ONNX Runtime does not run it.", "Leave out {provider}.")
    from samdec_export.backends.machine import glance

    engine = open_engine(path)
    if found := obstacle(engine.record, glance()):
        raise DependencyError(
            f"{engine.path} cannot run here: {found}.",
            "Run it on a machine that it was built for; samdec-export engines lists what can run on this one.",
        )
    return Candidate(artifact=Artifact(path=path, record=engine.record.source, sha256=engine.sha256), engine=engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runners:
    """What takes part in a comparison with the reference.

    Args:
        own: Runs the file itself; None where nothing here can.
        oracle: Runs the ONNX file with true rounding; None in fp32, or where there is no such file.
        notes: What could not take part, and why.
    """

    own: Runner | None
    oracle: Runner | None
    notes: tuple[str, ...]


def open_runners(candidate: Candidate) -> Runners:
    """Open everything that takes part when a candidate is judged.

    Raises:
        GraphError, EngineError, DependencyError: As the backends say.
    """
    own, missing = _own(candidate)
    oracle, absent = _oracle(candidate)
    return Runners(own=own, oracle=oracle, notes=(*missing, *absent))


def _own(candidate: Candidate) -> tuple[Runner | None, tuple[str, ...]]:
    """Open what runs the file itself, or say why nothing does."""
    backend = candidate.backend
    if candidate.artifact.record.precision not in backend.precisions:
        return None, (f"{backend.refusal}: only the oracle was compared.",)
    assert backend.judge is not None
    return backend.judge(candidate), ()


def _oracle(candidate: Candidate) -> tuple[Runner | None, tuple[str, ...]]:
    """Open the oracle where it has something to say, or say why it cannot."""
    oracle = BACKENDS["oracle"]
    if candidate.artifact.record.precision not in oracle.precisions:
        return None, ()
    if candidate.onnx is None:
        assert candidate.engine is not None
        return None, (f"{candidate.engine.record.onnx} does not lie beside the engine: the oracle was not compared.",)
    assert oracle.judge is not None
    return oracle.judge(candidate), ()
