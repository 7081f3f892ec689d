"""The prepared dataset: assembling, checking for flaws, writing and reading."""

from pathlib import Path

from fer_ray.errors import DataError

DATASET_FILE = "dataset.json"
PREPARE = "Make one with `fer-ray prepare SOURCE DEST`."


def require_dataset(folder: Path, name: Path | str) -> None:
    """Check that a folder looks like a prepared dataset, without reading it; ``name`` is its path or URL in messages.

    Raises:
        DataError: it is missing, or has no ``dataset.json``.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{name}: {what}. Expected the folder of a prepared dataset. {PREPARE}")
    if not (folder / DATASET_FILE).is_file():
        raise DataError(f"{name}: not a prepared dataset, {DATASET_FILE} is missing. {PREPARE}")
