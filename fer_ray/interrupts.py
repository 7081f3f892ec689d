"""What schedulers of clusters send to end a job, taken as Ctrl-C."""

import signal
import threading
from typing import Any


def interrupt_on_sigterm() -> None:
    """Raise ``KeyboardInterrupt`` at SIGTERM, as Slurm, Kubernetes and ``ray job stop`` send it, from now on.

    Only the main thread is told of signals; called in another one, this does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
