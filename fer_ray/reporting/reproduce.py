"""Show how to reproduce an output: its commands, package versions, machine and other settings."""

from collections.abc import Mapping
from pathlib import Path

from fer_ray.console.text import amount
from fer_ray.reporting.html import Code, PageBlock, Table
from fer_ray.storage.provenance import PROVENANCE_FILE, Hardware, read_provenance

_CAPTION = "How to reproduce"


def reproduce_blocks(folder: Path, facts: Mapping[str, str]) -> list[PageBlock]:
    """Return the commands that wrote a folder, and a table of the environment; ``DataError`` for damaged provenance.

    ``facts`` are other settings that the results depend on, such as ``{"Seed": "0"}``.
    """
    provenance = read_provenance(folder)
    if provenance is None:
        note = f"The folder has no {PROVENANCE_FILE}, so the command and the machine are unknown."
        return [Table(_CAPTION, (), list(facts.items()), note)]
    environments = [
        {
            "Started": f"{start.started:%Y-%m-%d %H:%M} UTC",
            "Machine": describe_machine(start.hardware),
            "Platform": start.hardware.platform,
            "Versions": ", ".join(f"{name} {version}" for name, version in start.versions.items()),
        }
        for start in provenance.starts
    ]
    rows = [(name, "; then ".join(dict.fromkeys(one[name] for one in environments))) for name in environments[0]]
    commands = "\n".join(start.command for start in provenance.starts)
    return [Code(_CAPTION, commands, is_open=True), Table("Environment", (), [*facts.items(), *rows])]


def describe_machine(hardware: Hardware) -> str:
    """Return processor, cores, memory and GPUs as one line."""
    gpus = [f"{hardware.gpus.count(name)} × {name}" for name in dict.fromkeys(hardware.gpus)]
    return ", ".join([f"{hardware.cpu}, {amount(hardware.cores, 'core')}", f"{hardware.memory_gib:.0f} GiB", *gpus])
