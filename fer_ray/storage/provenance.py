"""``provenance.json`` in an output: command, versions and hardware of each start of the stage that wrote it.

The machine's name and secrets are left out.
"""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fer_ray.console.messages import redacted
from fer_ray.storage.json_files import read_json
from fer_ray.storage.local import write_whole
from fer_ray.version import VERSION

FORMAT_VERSION = 1
PROVENANCE_FILE = "provenance.json"
_PACKAGES = ("ray", "torch", "torchvision", "optuna", "numpy", "pyarrow", "scikit-learn", "opencv-python-headless")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Record):
    """The machine that the command ran on; on a cluster, the machine of the driver."""

    cpu: str = Field(description="Processor model.")
    cores: int = Field(description="Logical cores that the process may use.")
    memory_gib: float = Field(description="Main memory, 2^30 bytes.")
    gpus: list[str] = Field(description="Models of the NVIDIA GPUs, one entry each.")
    platform: str


class Start(_Record):
    """One start of a stage."""

    command: str = Field(description="As typed, without secrets.")
    started: datetime = Field(description="UTC.")
    versions: dict[str, str] = Field(description="Versions of fer_ray, Python and the packages that results depend on.")
    hardware: Hardware


class Provenance(_Record):
    """The contents of ``provenance.json``."""

    format_version: int = FORMAT_VERSION
    starts: list[Start] = Field(min_length=1, description="The first start, then each resume.")


def this_start() -> Start:
    """Describe the running process; its start time is now."""
    return Start(
        command=command_line(sys.orig_argv),
        started=datetime.now(UTC).replace(microsecond=0),
        versions=_versions(),
        hardware=_hardware(),
    )


def record_start(folder: Path, start: Start | None = None) -> None:
    """Add a start to the ``provenance.json`` of a folder.

    Args:
        folder: an existing folder.
        start: None for ``this_start()``.

    Raises:
        DataError: the folder's ``provenance.json`` can't be read.
    """
    previous = read_provenance(folder)
    starts = [*(previous.starts if previous else []), start or this_start()]
    write_whole(folder / PROVENANCE_FILE, Provenance(starts=starts).model_dump_json(indent=2) + "\n")


def read_provenance(folder: Path) -> Provenance | None:
    """Read ``provenance.json``; return None if the folder has none.

    Raises:
        DataError: the file is invalid or of another format version.
    """
    file = folder / PROVENANCE_FILE
    return read_json(Provenance, file, "Remove it; the folder is usable without.") if file.is_file() else None


def command_line(arguments: Sequence[str]) -> str:
    """Return a process's arguments as typed, such as ``fer-ray train --dataset fer-data``, without secrets."""
    program, *rest = map(redacted, arguments)
    if rest and Path(rest[0]).name == "fer-ray":  # Python runs the installed command as a script
        program, *rest = rest
    return shlex.join([Path(program).name, *rest])


def _versions() -> dict[str, str]:
    versions = {"fer_ray": VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # training in one process doesn't need Ray
            continue
    return versions


def _hardware() -> Hardware:
    # From /proc, as importing torch would delay stages that don't need it.
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return Hardware(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpus=[_field(gpu, "Model") or "unknown" for gpu in gpus],
        platform=f"{platform.system()} {platform.release()}, {platform.machine()}",
    )


def _field(file: Path, name: str) -> str | None:
    """Return the first value of a field in a file of ``name : value`` lines, or None."""
    if not file.is_file():
        return None
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)
