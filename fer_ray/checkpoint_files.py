"""The names of a checkpoint's files, for those who look for one without loading torch."""

from pathlib import Path

WEIGHTS_FILE, INFO_FILE = "model.safetensors", "checkpoint.json"


def checkpoint_within(folder: Path, file: str) -> Path | None:
    """Return the checkpoint in the folder of a run or a search, by a file that it has; None where there is none."""
    folders = (folder / "checkpoint", folder / "best")
    return next((inside for inside in folders if (inside / file).is_file()), None)
