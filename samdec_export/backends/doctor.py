"""What is installed, what can run here, and what stands in the way."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from samdec_export.core.errors import DependencyError
from samdec_export.core.packages import ENGINES, SHOWN, tool_versions

__all__ = ["Diagnosis", "Finding", "diagnose", "diagnosis"]

Level: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing worth knowing, and what to do about it."""

    level: Level
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Versions by package (None: not installed), whether each engine can run here, and findings.

    `builders` says of each TensorRT why it cannot build here; an empty text where it can.
    """

    python: str
    platform: str
    packages: dict[str, str | None]
    engines: dict[str, bool]
    builders: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Return whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def require(self) -> None:
        """Raise unless healthy.

        Raises:
            DependencyError: A finding is an error.
        """
        errors = [finding for finding in self.findings if finding.level == "error"]
        if errors:
            raise DependencyError(errors[0].message, errors[0].advice)

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON."""
        return {**asdict(self), "healthy": self.healthy}


def diagnose() -> Diagnosis:
    """Return what is installed and what can run here."""
    from samdec_export.backends.eager import cuda_device
    from samdec_export.backends.machine import look
    from samdec_export.backends.ort import installed_providers

    machine = look()
    builders = {"tensorrt": machine.obstacle("tensorrt"), "tensorrt_rtx": machine.obstacle("rtx")}
    return diagnosis(cuda_device(), installed_providers(), builders)


def diagnosis(cuda_device: str | None, ort_providers: list[str], builders: dict[str, str]) -> Diagnosis:
    """Judge the installed packages.

    Args:
        cuda_device: The name of torch's CUDA device, or None.
        ort_providers: ONNX Runtime's execution providers.
        builders: Why each TensorRT cannot build here; empty where it can.
    """
    packages = [*_shown()]
    installed = tool_versions(*packages)
    return Diagnosis(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={package: installed.get(package) for package in packages},
        engines={
            "torch eager cpu": "torch" in installed,
            "torch eager cuda": cuda_device is not None,
            "onnxruntime cpu": "CPUExecutionProvider" in ort_providers,
            "onnxruntime cuda": cuda_device is not None and "CUDAExecutionProvider" in ort_providers,
        },
        builders=builders,
        findings=tuple(_findings(installed, cuda_device, ort_providers)),
    )


def _shown() -> Iterator[str]:
    """Yield the packages to show; of an engine the one that is installed, or else what its extra installs."""
    brought: dict[str, tuple[str, ...]] = {name: engine.packages for name, engine in ENGINES.items()}
    for name in SHOWN:
        known = brought.get(name, (name,))
        yield next(iter(tool_versions(*known)), known[0])


def _findings(installed: dict[str, str], cuda_device: str | None, ort_providers: list[str]) -> list[Finding]:
    findings = []
    both = {"onnxruntime", "onnxruntime-gpu"} <= installed.keys()
    if both:
        findings.append(
            Finding(
                level="error",
                message="onnxruntime and onnxruntime-gpu are both installed: they overwrite each other's files.",
                advice="pip uninstall -y onnxruntime onnxruntime-gpu, then install one of the extras [cpu] and [gpu].",
            )
        )
    if not {"onnxruntime", "onnxruntime-gpu"} & installed.keys():
        findings.append(
            Finding(
                level="warning",
                message="ONNX Runtime is not installed: exports cannot be validated.",
                advice="pip install 'samdec-export[cpu]', or [gpu].",
            )
        )
    elif not ort_providers:
        findings.append(
            Finding(
                level="error",
                message="ONNX Runtime is installed but cannot be imported.",
                advice="Install it again: pip install --force-reinstall onnxruntime.",
            )
        )
    if cuda_device is None and "CUDAExecutionProvider" in ort_providers:
        findings.append(
            Finding(
                level="note",
                message="onnxruntime-gpu is installed, but torch sees no CUDA device.",
                advice="Validation runs on the CPU provider.",
            )
        )
    return findings
