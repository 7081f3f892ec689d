"""The prepared dataset: assembling, checking for flaws, writing and reading."""

from pathlib import Path

from fer_ray.errors import DataError

DATASET_FILE = "dataset.json"
PREPARE = "Make one with `fer-ray prepare SOURCE DEST`."


def require_dataset(folder: Path, path_or_url: Path | str) -> None:
    """Check that a folder looks like a prepared dataset, without reading it.

    Args:
        folder: the folder on this machine.
        path_or_url: its name in messages.

    Raises:
        DataError: it is missing, or has no ``dataset.json``.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{path_or_url}: {what}. Expected the folder of a prepared dataset. {PREPARE}")
    if not (folder / DATASET_FILE).is_file():
        raise DataError(f"{path_or_url}: not a prepared dataset, {DATASET_FILE} is missing. {PREPARE}")
