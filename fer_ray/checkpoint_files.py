"""The names of a checkpoint's files, for those who look for one without loading torch."""

from pathlib import Path

from fer_ray.files import local_path, recover_folder
from fer_ray.folders import Folder
from fer_ray.object_stores import as_url

WEIGHTS_FILE, INFO_FILE = "model.safetensors", "checkpoint.json"


def checkpoint_within(folder: Path, file: str) -> Path | None:
    """Return the checkpoint in the folder of a run or a search, by a file that it has; None where there is none."""
    folders = (folder / "checkpoint", folder / "best")
    return next((inside for inside in folders if (inside / file).is_file()), None)


def is_checkpoint(place: Path | str) -> bool:
    """Say whether a path or URL holds a checkpoint's files, or the folder of a run or a search that has one inside.

    Raises:
        DataError: the object store of a URL can't be reached.
    """
    if url := as_url(place):
        return bool({WEIGHTS_FILE, INFO_FILE} & set(Folder.at(url).names()))
    folder = local_path(place)
    recover_folder(folder)
    return any((folder / file).is_file() or checkpoint_within(folder, file) for file in (WEIGHTS_FILE, INFO_FILE))
