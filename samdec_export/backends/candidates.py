"""What a path given to `validate` or `bench` is, and who takes part when it is judged.

An engine is compared with its sidecar, and the sidecar with this machine, before TensorRT, CUDA or torch is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samdec_export.backends.tensorrt.engine_file import EngineFile, open_engine
from samdec_export.backends.tensorrt.index import obstacle
from samdec_export.core.artifact import Artifact
from samdec_export.core.dtypes import Precision
from samdec_export.core.errors import DependencyError, UsageError
from samdec_export.core.options import Provider
from samdec_export.core.signature import Signature
from samdec_export.export.onnx_file import open_artifact

if TYPE_CHECKING:
    from samdec_export.core.runner import Runner

__all__ = ["Contenders", "Subject", "contend", "is_engine", "open_subject"]

ENGINE = ".engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A file to judge or to time.

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
        """The ranges that it takes: one signature, or one for each profile of an engine."""
        signature = self.artifact.record.signature
        profiles = self.engine.record.profiles if self.engine else ()
        return tuple(signature.within(profile) for profile in profiles) or (signature,)

    @property
    def on_gpu(self) -> bool:
        """It runs on a GPU."""
        return self.engine is not None or self.provider == "cuda"

    @property
    def rounding(self) -> Precision:
        """How exact it can be: TF32 rounds the factors of fp32 products to as many bits as fp16 has."""
        precision = self.artifact.record.precision
        tf32 = self.engine is not None and self.engine.record.settings.get("tf32")
        return "fp16" if tf32 and precision == "fp32" else precision

    @property
    def onnx(self) -> Path | None:
        """The ONNX file: itself, or what an engine was built from if that lies beside it."""
        return self.engine.onnx if self.engine else self.artifact.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contenders:
    """Who is judged in a validation.

    Args:
        own: The file itself; None where nothing here can run it.
        oracle: The ONNX file with true rounding; None in fp32, or where there is no such file.
        notes: Who could not take part, and why.
    """

    own: Runner | None
    oracle: Runner | None
    notes: tuple[str, ...]


def is_engine(path: Path) -> bool:
    """A path is taken for an engine by its ending, and for ONNX otherwise."""
    return path.suffix == ENGINE


def open_subject(path: Path, provider: Provider | None = None) -> Subject:
    """What a path is, and that it can run here as far as can be told without loading it.

    Args:
        path: An engine, or an ONNX file.
        provider: Where ONNX Runtime is to run it; None for the CPU.

    Raises:
        UsageError: A provider for an engine.
        EngineError: An engine is not what its sidecar says.
        DependencyError: An engine cannot run on this machine.
        GraphError: An ONNX file cannot be read, or samdec-export did not write it.
    """
    if not is_engine(path):
        subject = Subject(artifact=open_artifact(path), provider=provider or "cpu")
        _require_provider(subject.provider)
        return subject
    if provider is not None:
        raise UsageError(f"{path} is an engine: ONNX Runtime does not run it.", "Leave out {provider}.")
    engine = open_engine(path)
    _require_machine(engine)
    return Subject(artifact=Artifact(path=path, record=engine.record.source, sha256=engine.sha256), engine=engine)


def _require_machine(engine: EngineFile) -> None:
    from samdec_export.backends.machine import glance

    if found := obstacle(engine.record, glance()):
        raise DependencyError(
            f"{engine.path} cannot run here: {found}.",
            "Run it on a machine that it was built for; samdec-export engines lists what can run on this one.",
        )


def _require_provider(provider: Provider) -> None:
    from samdec_export.backends.ort import require_provider

    require_provider(provider)


def contend(subject: Subject) -> Contenders:
    """Open everybody who is judged.

    Raises:
        GraphError, EngineError, DependencyError: As the backends say.
    """
    own, notes = _own(subject)
    oracle, missing = _oracle(subject)
    return Contenders(own=own, oracle=oracle, notes=(*notes, *missing))


def _own(subject: Subject) -> tuple[Runner | None, tuple[str, ...]]:
    if subject.engine:
        from samdec_export.backends.tensorrt.load import load_engine
        from samdec_export.backends.tensorrt.polygraphy import PolygraphyRunner

        return PolygraphyRunner(load_engine(subject.engine)), ()
    from samdec_export.backends.ort import OrtRunner

    if subject.artifact.record.precision == "bf16" and subject.provider == "cpu":
        return None, ("ONNX Runtime's CPU provider has no bf16 kernels: only the oracle was compared.",)
    return OrtRunner(subject.artifact.path, subject.provider), ()


def _oracle(subject: Subject) -> tuple[Runner | None, tuple[str, ...]]:
    from samdec_export.backends.oracle.runner import OracleRunner

    if subject.artifact.record.precision == "fp32":
        return None, ()
    if subject.onnx:
        return OracleRunner(subject.onnx), ()
    assert subject.engine is not None
    return None, (f"{subject.engine.record.onnx} does not lie beside the engine: the oracle was not compared.",)
