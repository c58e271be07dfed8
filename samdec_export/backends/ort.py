"""ONNX Runtime, with silent fallback to another provider refused."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samdec_export.core.errors import DependencyError, GraphError
from samdec_export.core.options import Provider
from samdec_export.core.runner import Feeds, Outputs

__all__ = ["BURST", "BoundRunner", "OrtRunner", "installed_providers", "require_provider"]

PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3

OPTIONS: dict[Provider, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
"""TF32 is on unless cleared, and would round fp32 products to 10 bits."""

HEAVY = re.compile("MatMul|Gemm|Conv|Softmax|Normalization|Attention|Gelu|Resize")
"""Operators that may not fall back to the CPU; ONNX Runtime computes sizes there on purpose."""

BURST = 20
"""Runs that a timer times at once: a GPU that waits between runs lowers its clock."""

WARMUPS = 3


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
        GraphError: ONNX Runtime refuses the file, or would run a part of it that matters on another provider.
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
        require_provider(provider)
        self.provider = provider
        if provider == "cpu":
            self.session = self._open(ort, path, options)
            return
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        with contextlib.redirect_stdout(sys.stderr):  # it prints which libraries it does not find
            ort.preload_dlls()
            self.session = self._open(ort, path, options)
        self._require_no_fallback(path)

    def _open(self, ort: Any, path: Path, options: Any) -> Any:
        """Open a session that raises where ONNX Runtime would go on with another provider."""
        providers = [(PROVIDERS[self.provider], OPTIONS[self.provider])]
        try:
            return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions share no public base
            if self.provider != "cpu" and "CUDA" in str(error):
                raise _unavailable(self.provider) from error
            raise GraphError(f"ONNX Runtime refuses {path}: {_reason(error)}", "Export it again.") from error

    def _require_no_fallback(self, path: Path) -> None:
        """Raise unless the provider that was asked for took the graph, but for sizes.

        Raises:
            DependencyError: It took nothing.
            GraphError: It left an operator that matters to another one, or does not say.
        """
        wanted = PROVIDERS[self.provider]
        if self.session.get_providers()[0] != wanted:
            raise _unavailable(self.provider)
        parts = self.session.get_provider_graph_assignment_info()
        nodes = [(part.ep_name, node) for part in parts for node in part.get_nodes()]
        strays = [
            f"{node.op_type} {node.name}" for used, node in nodes if used != wanted and HEAVY.search(node.op_type)
        ]
        if strays or not nodes:
            raise GraphError(
                f"{path}: ONNX Runtime would run {', '.join(strays[:3]) or 'it'} elsewhere than on {self.provider}.",
                "Run it on the CPU, or in TensorRT.",
            )

    @property
    def name(self) -> str:
        """Return a name such as `onnxruntime 1.32.0 cpu`."""
        return f"onnxruntime {_import().__version__} {self.provider}"

    @property
    def metadata(self) -> dict[str, str]:
        """Return the file's `metadata_props`."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name.

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

    def bind(self, feeds: Feeds) -> Any:
        """Return an IOBinding with the inputs copied to the device, and outputs that are left on it."""
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, _import().OrtValue.ortvalue_from_numpy(array, self.provider, 0))
        for output in self.session.get_outputs():
            binding.bind_output(output.name, self.provider)
        binding.synchronize_inputs()
        return binding


class BoundRunner:
    """An `OrtRunner` whose timer copies nothing: inputs lie on the device, outputs are left there.

    Args:
        runner: What runs.
    """

    def __init__(self, runner: OrtRunner) -> None:
        self.runner = runner

    @property
    def name(self) -> str:
        """Return the name of the runner."""
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name, copied."""
        return self.runner.run(feeds)

    def timer(self, feeds: Feeds) -> Callable[[], list[float]]:
        """Return what takes the seconds of a few runs by the host's clock, each until the device is done."""
        binding = self.runner.bind(feeds)

        def once() -> float:
            started = time.perf_counter()
            self.runner.session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return time.perf_counter() - started

        for _ in range(WARMUPS):
            once()
        return lambda: [once() for _ in range(BURST)]


def require_provider(provider: Provider) -> None:
    """Raise unless ONNX Runtime was built with a provider; whether the GPU for it is there, only a session shows.

    Raises:
        DependencyError: It was not, or is not installed.
    """
    if PROVIDERS[provider] not in _import().get_available_providers():
        raise _unavailable(provider)


def installed_providers() -> list[str]:
    """Return ONNX Runtime's execution providers on this machine, best first; none if it is not installed."""
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
