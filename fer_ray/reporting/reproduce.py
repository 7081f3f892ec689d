"""How to make an output again: its commands, versions, machine and what else decides the figures."""

from collections.abc import Mapping
from pathlib import Path

from fer_ray.console.text import amount
from fer_ray.reporting.html import Code, PageBlock, Table
from fer_ray.storage.provenance import PROVENANCE_FILE, Hardware, Start, read_provenance

_CAPTION = "How to reproduce"


def reproduce_blocks(folder: Path, facts: Mapping[str, str]) -> list[PageBlock]:
    """Return the commands that wrote a folder, and a table of what they ran on.

    Args:
        folder: the output of a stage.
        facts: what else decides its figures, such as ``{"Seed": "0"}``.

    Raises:
        DataError: its ``provenance.json`` is damaged.
    """
    provenance = read_provenance(folder)
    if provenance is None:
        note = f"The folder has no {PROVENANCE_FILE}, so its command and machine are not known."
        return [Table(_CAPTION, (), list(facts.items()), note)]
    starts = provenance.starts
    rows = [*facts.items(), *_machine_rows(starts)]
    return [Code(_CAPTION, "\n".join(start.command for start in starts), is_open=True), Table("Ran with", (), rows)]


def _machine_rows(starts: list[Start]) -> list[tuple[str, str]]:
    """Say once what all starts share, and by start what differs."""
    described = [
        {
            "Started": f"{start.started:%Y-%m-%d %H:%M} UTC",
            "Machine": describe_machine(start.hardware),
            "Platform": start.hardware.platform,
            "Versions": ", ".join(f"{name} {version}" for name, version in start.versions.items()),
        }
        for start in starts
    ]
    rows = []
    for name in described[0]:
        values = list(dict.fromkeys(one[name] for one in described))
        rows.append((name, "; then ".join(values)))
    return rows


def describe_machine(hardware: Hardware) -> str:
    """Return processor, cores, memory and GPUs as one line."""
    gpus = [f"{hardware.gpus.count(name)} × {name}" for name in dict.fromkeys(hardware.gpus)]
    return ", ".join([f"{hardware.cpu}, {amount(hardware.cores, 'core')}", f"{hardware.memory_gib:.0f} GiB", *gpus])


def machine_of(folder: Path) -> str:
    """Return the machine on which a folder was last worked on, a dash where that is not known."""
    provenance = read_provenance(folder)
    return describe_machine(provenance.starts[-1].hardware) if provenance else "–"
