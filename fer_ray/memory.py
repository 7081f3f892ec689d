"""Amounts of memory: read, written, and how much is left."""

import os
import re
from pathlib import Path

from fer_ray.errors import UsageError

_UNITS = {
    "": 1,
    "B": 1,
    **{prefix + "B": 1000**power for power, prefix in enumerate("KMGT", start=1)},
    **{prefix + "iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_CGROUP = Path("/sys/fs/cgroup")


def parse_bytes(text: str) -> int:
    """Read an amount such as ``2GiB``, ``500 MB`` or ``1048576``.

    Raises:
        UsageError: it is none, or 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    amount = int(float(match[1]) * units[match[2].lower()]) if match and match[2].lower() in units else 0
    if amount < 1:
        raise UsageError(f"'{text}': no amount of memory. Write a number above 0 with a unit, such as 2GiB or 500MB.")
    return amount


def describe_bytes(amount: float) -> str:
    """Return an amount as a reader says it: ``66.6 MiB``, ``2 GiB``."""
    power = min(4, max(0, int(amount).bit_length() - 1) // 10)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{amount / 1024**power:,.1f}".removesuffix(".0") + f" {unit}"


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Return the bytes that this process may still take without swapping, within a container's limit where one is set.

    Args:
        meminfo: the kernel's account of memory.
        cgroup: the folder of the container's control group, version 2.
    """
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines()) if meminfo.is_file() else {}
    if "MemAvailable" in fields:
        available = int(fields["MemAvailable"].split()[0]) * 1024
    else:  # not Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        available = min(available, max(0, int(text) - int(used.read_text())))
    return available
