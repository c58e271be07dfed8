"""Ctrl-C, SIGTERM and SIGHUP around torch, whose import aborts on them and whose tracer swallows them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

__all__ = ["SIGNALS", "deferred", "final"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""


@contextmanager
def deferred() -> Iterator[None]:
    """Hold interrupts back until the block is done: one in the middle of torch's import aborts the process."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@contextmanager
def final(stop: Callable[[], object]) -> Iterator[None]:
    """Let no interrupt inside the block be lost, and nothing go on after one.

    torch's tracer swallows a KeyboardInterrupt now and then. So `stop` is called at once, to take away what the
    block works on, and the interrupt is raised again at its end.

    Args:
        stop: Called by the signal handler.

    Raises:
        KeyboardInterrupt: There was an interrupt, whatever became of it in the block.
    """
    interrupted = False

    def handle(former: Callable[[int, FrameType | None], object], signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        stop()
        former(signum, frame)

    in_main_thread = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in SIGNALS if in_main_thread}
    handlers = {number: handler for number, handler in former.items() if callable(handler)}
    for number, handler in handlers.items():
        signal.signal(number, partial(handle, handler))
    try:
        yield
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
