"""The processes that a process has started."""

from contextlib import suppress

import psutil


def descendants(pid: int) -> dict[psutil.Process, str]:
    """Return all processes below a process with their command lines; nothing if it has ended."""
    found = dict[psutil.Process, str]()
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found[process] = " ".join(process.cmdline()).strip()
    return found
