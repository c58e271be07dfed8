"""Polygraphy's runner of TensorRT engines: the independent one, for validation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samdec_export.backends.tensorrt.load import LoadedEngine
from samdec_export.backends.tensorrt.options import profile_for
from samdec_export.core.errors import DependencyError, EngineError
from samdec_export.core.feeds import sizes_of
from samdec_export.core.packages import ENGINES, EngineName
from samdec_export.core.runner import Feeds, Outputs

__all__ = ["PolygraphyRunner"]

FLAVOUR = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Read once, when Polygraphy is imported."""

SEARCHED = "LD_LIBRARY_PATH"
"""Where Polygraphy looks for the CUDA runtime."""


class PolygraphyRunner:
    """Runs an engine with Polygraphy's TrtRunner, which copies inputs to the GPU and outputs back.

    Raises:
        DependencyError: Polygraphy or the CUDA runtime is missing.
        EngineError: TensorRT refuses to run the engine, or Polygraphy serves the other TensorRT in this process.
    """

    def __init__(self, loaded: LoadedEngine) -> None:
        self.loaded = loaded
        polygraphy = _polygraphy(loaded.flavour)
        self._failure: type[Exception] = polygraphy.exception.PolygraphyException
        try:
            self._runner = polygraphy.backend.trt.TrtRunner(loaded.engine, name=loaded.name)
            self._runner.activate()
        except self._failure as error:
            raise self._refusal(error) from error
        self._profile = 0

    @property
    def name(self) -> str:
        """Return a name such as `TensorRT-RTX 1.7.1`."""
        return self.loaded.name

    def run(self, feeds: Feeds) -> Outputs:
        """Return the outputs by name, in the engine's order.

        Raises:
            EngineError: No profile holds the sizes, or the run fails.
        """
        index = profile_for(self.loaded.profiles, sizes_of(self.loaded.signature, feeds))
        inputs = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            if index != self._profile:
                self._runner.set_profile(index)
                self._profile = index
            outputs = self._runner.infer(inputs)
        except self._failure as error:
            raise self._refusal(error) from error
        return {name: np.array(array) for name, array in outputs.items()}  # the next run writes to its buffers again

    def _refusal(self, error: Exception) -> EngineError:
        reason = " ".join(str(error).split()) or "no reason given"
        return EngineError(f"{self.name} cannot run the engine: {reason}", "Build it again with samdec-export trt.")


def _polygraphy(flavour: EngineName) -> Any:
    """Import the package for one flavour, silent, and with the CUDA runtime found.

    Raises:
        DependencyError, EngineError: As the class says.
    """
    known = sys.modules.get("polygraphy.config")
    if known is not None and (flavour == "rtx") != known.USE_TENSORRT_RTX:
        raise EngineError(
            f"Polygraphy serves one TensorRT in a process, and here that is not {ENGINES[flavour].title}.",
            "Run each in a process of its own.",
        )
    folders = [*_cuda_folders(), *filter(None, [os.environ.get(SEARCHED)])]
    changes = {FLAVOUR: "1" if flavour == "rtx" else "0", SEARCHED: os.pathsep.join(folders)}
    with _environment(changes):
        try:
            import polygraphy.backend.trt
            import polygraphy.cuda
            import polygraphy.exception
            from polygraphy.logger import G_LOGGER

            G_LOGGER.module_severity = G_LOGGER.CRITICAL  # it writes to standard output, where the results go
            polygraphy.cuda.wrapper()
        except ImportError as error:
            raise DependencyError(
                f"Polygraphy cannot be imported: {error}.", f"pip install 'samdec-export[{ENGINES[flavour].extra}]'."
            ) from error
        except OSError as error:
            raise DependencyError(
                f"The CUDA runtime cannot be loaded: {error}.", "Put the folder of libcudart.so on LD_LIBRARY_PATH."
            ) from error
    return polygraphy


def _cuda_folders() -> list[str]:
    """Return where torch's CUDA packages keep the CUDA runtime; Polygraphy does not know the layout of CUDA 13."""
    roots = [Path(entry) / "nvidia" for entry in sys.path if entry]
    return sorted({str(file.parent) for root in roots for file in root.glob("*/lib/libcudart.so*")})


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
