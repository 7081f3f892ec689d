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

from pydantic import Field

from fer_ray.console.messages import redacted
from fer_ray.storage.json_files import StoredModel, read_json
from fer_ray.storage.output import Output
from fer_ray.version import VERSION

FORMAT_VERSION = 1
PROVENANCE_FILE = "provenance.json"
_PACKAGES = ("ray", "torch", "torchvision", "optuna", "numpy", "pyarrow", "scikit-learn", "opencv-python-headless")


class Hardware(StoredModel):
    """The machine of the command; on a cluster, of the driver."""

    cpu: str
    cores: int  # logical ones that the process may use
    memory_gib: float
    gpus: list[str]  # models, one entry a GPU
    platform: str


class Start(StoredModel):
    """One start of a stage; time in UTC."""

    command: str
    started: datetime
    versions: dict[str, str]
    hardware: Hardware


class Provenance(StoredModel):
    """The contents of ``provenance.json``: the first start, then each resume."""

    format_version: int = FORMAT_VERSION
    starts: list[Start] = Field(min_length=1)


def this_start() -> Start:
    """Describe the running process; its start time is now."""
    started = datetime.now(UTC).replace(microsecond=0)
    return Start(command=command_line(sys.orig_argv), started=started, versions=_versions(), hardware=_hardware())


def record_start(output: Output | Path, start: Start | None = None) -> None:
    """Add a start, by default this one, to the ``provenance.json`` of an output; raises as ``read_provenance``."""
    previous = read_provenance(output)
    starts = [*(previous.starts if previous else []), start or this_start()]
    Output.at(output).write(PROVENANCE_FILE, Provenance(starts=starts).model_dump_json(indent=2) + "\n")


def read_provenance(output: Output | Path) -> Provenance | None:
    """Read ``provenance.json``, None if there is none; ``DataError`` if it is invalid or of another version."""
    output = Output.at(output)
    if not output.exists(PROVENANCE_FILE):
        return None
    return read_json(Provenance, output.file(PROVENANCE_FILE), "Remove it; the output is usable without it.")


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
