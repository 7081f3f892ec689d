"""Where an output came from: ``provenance.json`` beside what a stage wrote, with an entry for each start of the stage.

It names command, versions and machine, and leaves out the machine's name and secrets.
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Part):
    """The machine that the command ran on; of a cluster, the one of the driver."""

    cpu: str = Field(description="Model of the processor.")
    cores: int = Field(description="Logical cores that the process may use.")
    memory_gib: float = Field(description="Main memory, 2^30 bytes.")
    gpus: list[str] = Field(description="Models of NVIDIA's GPUs, one entry each.")
    platform: str


class Start(_Part):
    """One start of a stage."""

    command: str = Field(description="As typed, without secrets.")
    started: datetime = Field(description="UTC.")
    versions: dict[str, str] = Field(description="Of fer_ray, Python and the packages that figures depend on.")
    hardware: Hardware


class Provenance(_Part):
    """The contents of ``provenance.json``."""

    format_version: int = FORMAT_VERSION
    starts: list[Start] = Field(min_length=1, description="The first one, then each that resumed it.")


def this_start() -> Start:
    """Describe the running process, as started now."""
    return Start(
        command=command_line(sys.orig_argv),
        started=datetime.now(UTC).replace(microsecond=0),
        versions=_versions(),
        hardware=_hardware(),
    )


def record_start(folder: Path, start: Start | None = None) -> None:
    """Add a start to the folder's ``provenance.json``.

    Args:
        folder: the output of a stage; it exists.
        start: None for one that begins now.

    Raises:
        DataError: the folder has a ``provenance.json`` that can't be read.
    """
    previous = read_provenance(folder)
    starts = [*(previous.starts if previous else []), start or this_start()]
    write_whole(folder / PROVENANCE_FILE, Provenance(starts=starts).model_dump_json(indent=2) + "\n")


def read_provenance(folder: Path) -> Provenance | None:
    """Read ``provenance.json``; None where the folder has none.

    Raises:
        DataError: it isn't what this version of the program writes.
    """
    file = folder / PROVENANCE_FILE
    return read_json(Provenance, file, "Remove it; the folder is usable without.") if file.is_file() else None


def command_line(arguments: Sequence[str]) -> str:
    """Return a process's arguments as a user types them, such as ``fer-ray train --dataset fer-data``."""
    program, *rest = map(redacted, arguments)
    if rest and Path(rest[0]).name == "fer-ray":  # the installed command, which Python runs as a script
        program, *rest = rest
    return shlex.join([Path(program).name, *rest])


def _versions() -> dict[str, str]:
    versions = {"fer_ray": VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # Ray is not needed to train in one process
            continue
    return versions


def _hardware() -> Hardware:
    # /proc tells of GPUs without importing torch, which would delay the stages that don't need it here.
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return Hardware(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpus=[_field(gpu, "Model") or "unknown" for gpu in gpus],
        platform=f"{platform.system()} {platform.release()}, {platform.machine()}",
    )


def _field(file: Path, name: str) -> str | None:
    """Return the first value of a field in a file of ``name : value`` lines, None where there is none."""
    if not file.is_file():
        return None
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)
