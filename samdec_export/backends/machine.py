"""What this machine has for engines: a GPU, asked of its driver alone, and the installed TensorRT flavours."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samdec_export.backends.tensorrt.api import declared_version, installed_version
from samdec_export.core.packages import ENGINES, EngineName

__all__ = ["Gpu", "Machine", "first_gpu", "glance", "look"]

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute of the CUDA driver API (cuda.h)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The first CUDA device. `target` is its generation, such as sm89."""

    name: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A GPU or None, and the version of each engine that can be imported."""

    gpu: Gpu | None
    versions: Mapping[EngineName, str]

    def obstacle(self, engine: EngineName) -> str:
        """Return why `engine` cannot build here; empty where it can."""
        if engine not in self.versions:
            return f"{ENGINES[engine].title} is not installed (pip install 'samdec-export[{ENGINES[engine].extra}]')"
        if engine == "tensorrt" and self.gpu is None:
            return "TensorRT builds on a GPU, and there is none here"
        return ""


def look() -> Machine:
    """Look at this machine; importing the engines takes up to a second."""
    return _machine(installed_version)


def glance() -> Machine:
    """Return the same without importing the engines: their versions are what their packages declare."""
    return _machine(declared_version)


def _machine(version_of: Callable[[EngineName], str]) -> Machine:
    found = {engine: version_of(engine) for engine in ENGINES}
    return Machine(gpu=first_gpu(), versions={engine: version for engine, version in found.items() if version})


def first_gpu() -> Gpu | None:
    """Return the first CUDA device, or None.

    Asked of the driver: torch and TensorRT may each be built without CUDA, or be missing.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    )
    return None if failed else Gpu(name=name.value.decode(errors="replace"), target=f"sm{major.value}{minor.value}")
