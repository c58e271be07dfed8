"""Progress and logs, all on stderr. Silent until the command line calls `show_progress`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Phases", "console", "log", "phases", "show_progress", "step", "track"]

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

T = TypeVar("T")

log = logging.getLogger("samdec_export")
log.addHandler(logging.NullHandler())


def console() -> Console:
    """Return a console on the current stderr."""
    return Console(stderr=True, highlight=False)


def show_progress(verbose: bool = False) -> None:
    """Send this package's log to stderr; `verbose` adds the details."""
    handler = RichHandler(console=console(), show_time=False, show_path=False, show_level=False, markup=False)
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


def _bars(shown: bool = True) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console(), transient=True, disable=not shown)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Show `title` while the block runs and its elapsed time when it is done; call what it gives to show how far."""
    started = time.perf_counter()
    if log.isEnabledFor(logging.INFO):
        with console().status(title) as status:
            yield lambda text: status.update(f"{title}: {text}")
    else:
        yield lambda text: None
    log.info("%-52s %6.1f s", title, time.perf_counter() - started)


def track(items: Sequence[T], title: str) -> Iterable[T]:
    """Iterate over `items` with a progress bar on a terminal."""
    if not log.isEnabledFor(logging.INFO):
        yield from items
        return
    with _bars() as progress:
        yield from progress.track(items, description=title)


class Phases:
    """The nested phases of a long step, a bar for each. May be called from any thread."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, TaskID] = {}

    def start(self, name: str, steps: int) -> None:
        """Begin a phase of so many steps."""
        self.bars[name] = self.progress.add_task(name, total=steps)

    def advance(self, name: str, step: int) -> None:
        """Step number `step`, from 0, is done."""
        if name in self.bars:
            self.progress.update(self.bars[name], completed=step + 1)

    def finish(self, name: str) -> None:
        """End a phase."""
        if name in self.bars:
            self.progress.remove_task(self.bars.pop(name))


@contextmanager
def phases(title: str) -> Iterator[Phases]:
    """Show the phases of a step while the block runs, on a terminal, and its elapsed time when it is done."""
    started = time.perf_counter()
    with _bars(log.isEnabledFor(logging.INFO) and console().is_terminal) as progress:
        progress.add_task(title, total=None)
        yield Phases(progress)
    log.info("%-52s %6.1f s", title, time.perf_counter() - started)
