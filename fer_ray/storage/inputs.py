"""Inputs by path or URL: what is in an object store is copied to this machine's disk once, and read there.

Copies are in a folder of the user below the system's temporary folder, or in ``FER_RAY_CACHE``. They may be removed
while nothing runs. Copies that were not used for a month are removed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from fer_ray.console.progress import ProgressBar
from fer_ray.errors import DataError, UsageError
from fer_ray.storage.local import local_path, make_folder, recover_folder, whole_folder
from fer_ray.storage.object_store import REQUESTS_AT_ONCE, as_url, locate, require_bucket

WEIGHTS_FILE, INFO_FILE = "model.safetensors", "checkpoint.json"  # the files of a checkpoint
INT8_FILE = "model.int8.onnx"  # the file of a checkpoint that also has an int8 model
CURRENT_FILE, INCOMPLETE_FILE = ".current", ".incomplete"
"""What ``fer_ray.storage.output`` writes beside an output's files."""
_PROGRESS_BYTES = 16 << 20  # a smaller copy is fast
_KEPT_S = 30 * 86_400
_TRIES = 3  # a job may replace files while they are copied
T = TypeVar("T")


def local_copy(path_or_url: Path | str, leave_out: Sequence[str] = ()) -> Path:
    """Return a path as an absolute path, and for a URL the path of its copy on this machine.

    A copy is whole, made again if the objects have changed, and shared by all processes of the machine. Hidden files
    are left out, and files and folders whose names match ``leave_out``, such as ``part-*``. If nothing is at the URL,
    the path doesn't exist. ``UsageError`` for a URL of an unknown kind, ``DataError`` if the store can't be read.
    """
    url = as_url(path_or_url)
    if not url:
        path = local_path(path_or_url)
        recover_folder(path)
        # A folder that was downloaded from an object store by other means.
        return path / (path / CURRENT_FILE).read_text() if (path / CURRENT_FILE).is_file() else path
    try:
        return _retried(url, lambda: _copied(url.rstrip("/"), leave_out))
    except OSError as error:
        raise DataError(f"{url}: can't be copied to this machine: {error}.") from error


def as_list(paths_or_urls: Path | str | Sequence[Path | str]) -> list[Path | str]:
    """Return one path or URL, or several, as a list."""
    return [paths_or_urls] if isinstance(paths_or_urls, (Path, str)) else list(paths_or_urls)


def checkpoint_within(folder: Path, file: str) -> Path | None:
    """Return the checkpoint that has a file, in the folder of a run or a search; None if there is none."""
    folders = (folder / "checkpoint", folder / "best")
    return next((inside for inside in folders if (inside / file).is_file()), None)


def is_checkpoint(path_or_url: Path | str) -> bool:
    """Return whether a folder is a checkpoint or, if it is on this machine, holds one."""
    if url := as_url(path_or_url):
        filesystem, path = locate(url)
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return bool({WEIGHTS_FILE, INFO_FILE, CURRENT_FILE} & {info.base_name for info in found})
    folder = local_copy(path_or_url)
    return any((folder / file).is_file() or checkpoint_within(folder, file) for file in (WEIGHTS_FILE, INFO_FILE))


def cache_folder() -> Path:
    """Return the folder of all copies; ``UsageError`` if it belongs to another user or can't be made."""
    folder = local_path(os.environ.get("FER_RAY_CACHE") or Path(tempfile.gettempdir()) / f"fer_ray-{os.getuid()}")
    if not folder.is_dir():
        make_folder(folder)
        folder.chmod(0o700)
    if folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder}: belongs to another user. Name a folder of your own by FER_RAY_CACHE.")
    return folder


def stored_files(filesystem: fs.FileSystem, prefix: str) -> dict[str, fs.FileInfo]:
    """Return the files below a prefix that readers see, by their names relative to it, sorted.

    Hidden files are left out, and all files of an incomplete output. ``OSError`` if the store can't be read;
    ``FileNotFoundError`` if a folder was replaced meanwhile.
    """
    found = filesystem.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True))
    infos = {info.path[len(prefix) + 1 :]: info for info in found if info.type == fs.FileType.File}
    if INCOMPLETE_FILE in infos:
        return {}
    for pointer in [name for name in infos if f"/{name}".endswith(f"/{CURRENT_FILE}")]:
        folder = pointer.removesuffix(CURRENT_FILE)
        if _is_hidden(folder):
            continue
        current = f"{folder}{read_current(filesystem, f'{prefix}/{folder}'.rstrip('/'))}/"
        seen = {folder + name.removeprefix(current): info for name, info in infos.items() if name.startswith(current)}
        if not seen:
            raise FileNotFoundError(f"{prefix}/{current}")
        infos = {name: info for name, info in infos.items() if not name.startswith(folder)} | seen
    return {name: info for name, info in sorted(infos.items()) if not _is_hidden(name)}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def read_current(filesystem: fs.FileSystem, folder: str) -> str:
    """Return the name of the numbered folder that a folder's pointer names; empty without a pointer."""
    if filesystem.get_file_info(f"{folder}/{CURRENT_FILE}").type != fs.FileType.File:
        return ""
    with filesystem.open_input_stream(f"{folder}/{CURRENT_FILE}") as file:
        return str(file.read(), "utf-8")


def download(url: str, folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """Copy the files below a URL whose names are wanted to a folder; raises as ``local_copy``, and ``OSError``."""
    filesystem, prefix = locate(url)

    def copy() -> None:
        files = stored_files(filesystem, prefix)
        _copy(filesystem, {name: info for name, info in files.items() if is_wanted(name)}, folder, url)

    _retried(url, copy)


def _retried(url: str, copy: Callable[[], T]) -> T:
    for _ in range(_TRIES):
        try:
            return copy()
        except FileNotFoundError as error:
            missing = error
    raise DataError(f"{url}: its files change while they are copied: {missing}. Try again later.") from missing


def _copied(url: str, leave_out: Sequence[str]) -> Path:
    filesystem, path = locate(url)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        files = {"": info}
    else:
        files = {
            name: info
            for name, info in stored_files(filesystem, path).items()
            if not any(fnmatch(name.split("/")[0], pattern) for pattern in leave_out)
        }
    listing = json.dumps([url, [(info.path, info.size, info.mtime_ns or 0) for info in files.values()]])
    folder = cache_folder() / "inputs" / hashlib.sha256(listing.encode()).hexdigest()[:32]
    copy = url.replace("://", "/")  # messages about a file in the copy then show its URL too
    if folder.is_dir():
        os.utime(folder)
    elif files:
        _remove_old_copies()
        make_folder(folder.parent)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                with whole_folder(folder) as partial:
                    _copy(filesystem, files, partial / copy, url)
    else:
        require_bucket(url)
    return folder / copy


def _copy(filesystem: fs.FileSystem, files: dict[str, fs.FileInfo], target: Path, url: str) -> None:
    def copy(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        fs.copy_files(files[name].path, str(target / name), filesystem, fs.LocalFileSystem())

    is_large = sum(info.size for info in files.values()) >= _PROGRESS_BYTES
    progress = ProgressBar(f"Fetching {url}", len(files), "files") if is_large else nullcontext()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool, progress as bar:
        for _ in pool.map(copy, files):
            if bar:
                bar.advance()


def _remove_old_copies() -> None:
    for copy in cache_folder().glob("*/*"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - copy.stat().st_mtime > _KEPT_S:
                shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
