"""The packages whose versions decide what a stage writes or finds, and the engines that packages bring.

A record names the versions of its row, and the ledger runs a stage again where one of them changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal, TypeAlias

__all__ = [
    "BENCH",
    "CONVERT",
    "ENGINES",
    "ENGINE_RUNNERS",
    "EXPORT",
    "OURS",
    "PARITY",
    "RECORD",
    "SHOWN",
    "SIMPLIFY",
    "Engine",
    "EngineName",
    "tool_versions",
]

EngineName: TypeAlias = Literal["tensorrt", "rtx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A TensorRT: what Python imports, and the extra that brings it.

    `packages` are all names that it is distributed under, each declared with the module's version; the extra's first.
    """

    title: str
    module: str
    extra: str
    packages: tuple[str, ...]


def _wheels(name: str) -> tuple[str, str, str]:
    return name, f"{name}-bindings", f"{name}-libs"


ENGINES: Final[dict[EngineName, Engine]] = {
    "tensorrt": Engine(
        title="TensorRT",
        module="tensorrt",
        extra="gpu",
        packages=("tensorrt", *_wheels("tensorrt-cu13"), *_wheels("tensorrt-cu12")),
    ),
    "rtx": Engine(
        title="TensorRT-RTX",
        module="tensorrt_rtx",
        extra="rtx",
        packages=(*_wheels("tensorrt-rtx-cu13"), *_wheels("tensorrt-rtx-cu12"), "tensorrt-rtx"),
    ),
}

OURS: Final = "samdec-export"
ORT: Final = ("onnxruntime", "onnxruntime-gpu")

EXPORT: Final = (OURS, "torch", "onnx", "onnxscript")
"""From a module to the graph that torch's exporter writes."""

SIMPLIFY: Final = (OURS, "onnx", "onnxscript", "onnxslim")
"""From that graph to the fp32 file."""

CONVERT: Final = (OURS, "onnx", *ORT, "numpy", "ml_dtypes")
"""From fp32 to fp16 or bf16: what measures the ranges that decide what stays in fp32, and what rounds."""

RECORD: Final = (OURS, "torch", "numpy")
"""The answers of a golden."""

PARITY: Final = ("torch", "onnx", *ORT, "numpy", "ml_dtypes")
"""A comparison with eager PyTorch, in ONNX Runtime and by the oracle."""

ENGINE_RUNNERS: Final = ("polygraphy", "torch")
"""What runs an engine, beside its TensorRT: one to judge it, one to time it."""

BENCH: Final = (*ORT, "numpy")
"""The times of ONNX files."""

SHOWN: Final = (*dict.fromkeys((*EXPORT, *SIMPLIFY)), *ORT, *ENGINES, "polygraphy", "numpy", "safetensors")
"""What `doctor` lists, in that order; an engine stands for the package that brought it."""


def tool_versions(*packages: str) -> dict[str, str]:
    """Return the version of each package that is installed, each named once."""
    installed = {package: next(iter(metadata.distributions(name=package)), None) for package in packages}
    return {package: found.version for package, found in installed.items() if found}
