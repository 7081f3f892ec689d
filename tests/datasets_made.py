"""A source to prepare, and what a prepared folder holds."""

import hashlib
from pathlib import Path

import numpy as np


def write_csv(path: Path, rows: list[tuple[int, np.ndarray, str]]) -> Path:
    lines = [f"{label},{' '.join(map(str, image.reshape(-1)))},{usage}" for label, image, usage in rows]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return path


def hashes(folder: Path) -> dict[str, str]:
    """All files but the provenance, which names the time of the start."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json")
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
