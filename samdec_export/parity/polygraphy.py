"""Inputs and outputs in the files of NVIDIA's Polygraphy: what `polygraphy run` loads and saves.

Polygraphy itself reads and writes them, and is a DependencyError where it is not installed. A path to read is one file,
or a folder with a file for each iteration; a UsageError says that it holds something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samdec_export.core.errors import DependencyError, SamdecError, UsageError
from samdec_export.core.runner import Array, Feeds, Outputs

__all__ = ["read_inputs", "read_outputs", "write_inputs", "write_outputs"]


def read_inputs(path: Path) -> list[dict[str, Array]]:
    """Return what `--save-inputs` wrote: arrays by input name, for each iteration."""
    with _explained(path, "inputs"):
        from polygraphy.json import load_json

        loaded = [load_json(str(file)) for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
        iterations = [feeds for content in loaded for feeds in (content if isinstance(content, list) else [content])]
        return [_arrays(feeds) for feeds in iterations]


def read_outputs(path: Path) -> dict[str, list[dict[str, Array]]]:
    """Return what `--save-outputs` wrote: for each runner, arrays by output name for each iteration."""
    found: dict[str, list[dict[str, Array]]] = {}
    with _explained(path, "outputs"):
        from polygraphy.comparator import RunResults

        for results in RunResults.load_streaming(str(path)):
            for runner, iterations in results.items():
                found.setdefault(runner, []).extend(_arrays(iteration) for iteration in iterations)
        if not found:
            raise ValueError("it holds no iterations")
    return found


def write_inputs(path: Path, cases: Iterable[Feeds]) -> None:
    """Write what `--load-inputs` reads. Every case is in memory at once."""
    with _explained(path, "inputs"):
        from polygraphy.json import save_json

        save_json([dict(feeds) for feeds in cases], str(path))


def write_outputs(path: Path, runner: str, cases: Iterable[Outputs]) -> None:
    """Write what `--load-outputs` reads: a runner's outputs. Every case is in memory at once."""
    with _explained(path, "outputs"):
        from polygraphy.comparator import RunResults

        results = RunResults()
        results.add(list(cases), runner_name=runner)
        results.save(str(path))


def _arrays(iteration: Mapping[Any, Any]) -> dict[str, Array]:
    arrays = dict(iteration.items())
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is {type(array).__name__}, not a NumPy array")
    if not arrays:
        raise ValueError("an iteration is empty")
    return arrays


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Keep Polygraphy quiet, and say what its many exceptions mean."""
    try:
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise DependencyError(
            f"{path} is of Polygraphy, which is not installed.", "Install it: pip install 'samdec-export[polygraphy]'."
        ) from error
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
            yield
    except (OSError, SamdecError):
        raise
    except Exception as error:  # its own, and whatever json, base64 and numpy raise on damaged text
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"{path} does not hold {what} as Polygraphy writes them, or is damaged: {reason}.",
            f"Write it with polygraphy run --save-{what}.",
        ) from error
