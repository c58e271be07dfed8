"""ONNX Runtime with inputs and outputs that stay on the device, for the benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable

from samdec_export.backends.ort import OrtRunner
from samdec_export.core.runner import Feeds, Outputs

__all__ = ["BoundRunner"]

BURST = 20
"""Runs that a timer times at once: a GPU that waits between runs lowers its clock."""

WARMUPS = 3


class BoundRunner:
    """An `OrtRunner` whose timer copies nothing: inputs lie on the device, outputs are left there.

    Args:
        runner: What runs.
    """

    def __init__(self, runner: OrtRunner) -> None:
        self.runner = runner

    @property
    def name(self) -> str:
        """That of the runner."""
        return self.runner.name

    def run(self, feeds: Feeds) -> Outputs:
        """The outputs by name, copied."""
        return self.runner.run(feeds)

    def timer(self, feeds: Feeds) -> Callable[[], list[float]]:
        """Seconds of a few runs by the host's clock, each until the device is done."""
        binding = self.runner.bind(feeds)

        def once() -> float:
            started = time.perf_counter()
            self.runner.session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return time.perf_counter() - started

        for _ in range(WARMUPS):
            once()
        return lambda: [once() for _ in range(BURST)]
