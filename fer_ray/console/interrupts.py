"""Ctrl-C, and SIGTERM handled like Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred_interrupt(notice: str) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets instead of raising; a second raises ``KeyboardInterrupt``.

    ``notice`` is printed at the first signal.
    """
    from fer_ray.console.progress import say  # here, as rich takes a while to import

    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # other threads receive no signals
        yield interrupted
        return

    def note(number: int, frame: Any) -> None:
        interrupted.set()
        say(f"{notice} Ctrl-C again stops at once." if sys.stdin.isatty() else notice)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        restore()


def interrupt_on_sigterm() -> None:
    """Raise ``KeyboardInterrupt`` at SIGTERM, which Slurm, Kubernetes and ``ray job stop`` send.

    Does nothing outside the main thread, as only that one receives signals.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
