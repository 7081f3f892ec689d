"""Available memory, and errors that mean it ran out."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_ray.errors import FerRayError, UsageError

_CGROUP = Path("/sys/fs/cgroup")
_SIGNS = re.compile(
    r"out of memory|DefaultCPUAllocator|(can't|cannot|failed to) allocate|_ALLOC(ATION)?_FAILED|MemoryAllocation",
    re.IGNORECASE,
)
"""Texts of ``RuntimeError`` by PyTorch's allocators, CUDA, cuBLAS, cuDNN, NCCL and HIP."""


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Return the bytes that this process can still take without swapping, within the limit of its control group."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines()) if meminfo.is_file() else {}
    if "MemAvailable" in fields:
        available = int(fields["MemAvailable"].split()[0]) * 1024
    else:  # not Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        available = min(available, max(0, int(text) - int(used.read_text())))
    return available


def is_out_of_memory(error: object) -> bool:
    """Return whether an error, or its cause, means that memory ran out, by names and texts of Python's, PyTorch's,
    the system's and Ray's errors: neither PyTorch nor Ray is imported.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and _SIGNS.search(str(error)):
        return True
    cause = getattr(error, "cause", None) or getattr(error, "__cause__", None)
    return cause is not None and is_out_of_memory(cause)


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error into a ``UsageError`` with its first line and a remedy."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FerRayError) or not is_out_of_memory(error):
            raise
        raise UsageError(f"out of memory: {first_line(error)}. {remedy}") from error


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def killed_for_memory(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel of this machine has killed for memory since it started; 0 if unknown."""
    lines = vmstat.read_text().splitlines() if vmstat.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
