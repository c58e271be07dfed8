"""ONNX Runtime, with silent fallback to another provider refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from samdec_export.errors import DependencyError, GraphError
from samdec_export.runner import Feeds, Outputs

__all__ = ["OrtRunner", "Provider", "installed_providers"]

Provider: TypeAlias = Literal["cpu", "cuda"]

PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3


class OrtRunner:
    """Runs an ONNX file in ONNX Runtime.

    Args:
        path: The file.
        provider: Where to run it.
        threads: Threads within an operator; None for ONNX Runtime's own choice.
        arena: Keep freed memory for the next run, as ONNX Runtime does by default. It pays where shapes repeat; where
            every run has another shape it only keeps the largest.

    Raises:
        DependencyError: ONNX Runtime is not installed, or the provider cannot be had on this machine.
        GraphError: ONNX Runtime refuses the file.
    """

    def __init__(
        self, path: Path, provider: Provider = "cpu", *, threads: int | None = None, arena: bool = False
    ) -> None:
        ort = _import()
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
        if threads is not None:
            options.intra_op_num_threads = threads
        wanted = PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise _unavailable(provider)
        try:
            self.session = ort.InferenceSession(str(path), options, providers=[wanted])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise GraphError(f"ONNX Runtime refuses {path}: {_reason(error)}", "Export it again.") from error
        if self.session.get_providers()[0] != wanted:
            raise _unavailable(provider)
        self.provider = provider

    @property
    def name(self) -> str:
        """Such as `onnxruntime 1.32.0 cpu`."""
        return f"onnxruntime {_import().__version__} {self.provider}"

    @property
    def metadata(self) -> dict[str, str]:
        """The file's `metadata_props`."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Feeds) -> Outputs:
        """The outputs by name.

        Raises:
            GraphError: The run failed; the message is ONNX Runtime's.
        """
        names = [output.name for output in self.session.get_outputs()]
        try:
            results: list[Any] = self.session.run(None, dict(feeds))
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise GraphError(
                f"ONNX Runtime failed: {_reason(error)}", "The graph is not what its record says."
            ) from error
        return dict(zip(names, results, strict=True))


def installed_providers() -> list[str]:
    """ONNX Runtime's execution providers on this machine, best first; none if it is not installed."""
    try:
        return list(_import().get_available_providers())
    except DependencyError:
        return []


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            "onnxruntime is not installed.", "Install an extra: pip install 'samdec-export[cpu]', or [gpu]."
        ) from error
    return onnxruntime


def _unavailable(provider: Provider) -> DependencyError:
    return DependencyError(
        f"ONNX Runtime cannot run on {provider} here.", "samdec-export doctor shows what is installed and missing."
    )


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
