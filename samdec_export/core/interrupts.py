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
    """Hold interrupts back until the block is done: one in the middle of torch's import aborts the process.

    By handlers, not by a signal mask: a mask is a thread's own, and once torch or TensorRT has started threads of its
    own, a signal goes to one of those. Does nothing outside of the main thread, where no handler runs.
    """
    waiting: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in SIGNALS if in_main_thread}
    held = {number: handler for number, handler in former.items() if handler not in (None, signal.SIG_IGN)}
    for number in held:
        signal.signal(number, lambda signum, frame: waiting.append(signum))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(waiting):
            signal.raise_signal(number)


@contextmanager
def final(stop: Callable[[], object]) -> Iterator[None]:
    """Let no interrupt inside the block be lost, and nothing go on after one.

    torch's tracer swallows a KeyboardInterrupt now and then. So the signal handler calls `stop` at once, to take away
    what the block works on, and KeyboardInterrupt is raised again at its end.
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
