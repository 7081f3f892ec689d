"""Inputs by path or URL: what lies in an object store is copied to this machine's disk once, and read there.

Copies lie in a folder of the user's own below the system's temporary one, or where ``FER_RAY_CACHE`` says. They may be
removed whenever nothing runs, and are when nobody has asked for them for a month.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pyarrow import fs

from fer_ray.console.messages import show_as
from fer_ray.console.progress import ProgressBar
from fer_ray.errors import DataError, UsageError
from fer_ray.storage.local import local_path, make_folder, whole_folder
from fer_ray.storage.object_store import REQUESTS_AT_ONCE, as_url, locate, require_bucket

PENDING = ".pending"
"""The folder of a prefix in which ``fer_ray.storage.outputs`` puts several files that shall replace others together."""
JOURNAL = f"{PENDING}/journal.json"
_SHOWN_BYTES = 16 << 20  # from which on a copy may take a while
_KEPT_S = 30 * 86_400
_TRIES = 3  # a job may replace its files while they are copied


@dataclass(frozen=True)
class StoredFile:
    """A file of a prefix.

    Attributes:
        name: relative to the prefix.
        path: of the object, in its filesystem.
        size: bytes.
        changed: nanoseconds by the store's clock.
    """

    name: str
    path: str
    size: int
    changed: int


def local_copy(place: Path | str, leave_out: Sequence[str] = ()) -> Path:
    """Return a local path as it is, absolute, and of a URL the path of a copy on this machine.

    A copy is whole or absent, taken again where the objects have changed, and shared by all processes of a machine.
    Hidden files are left out. Where the URL holds nothing the path doesn't exist, for whoever reads it to say so.

    Args:
        place: a path or an ``s3://`` or ``gs://`` URL, of a file or of all files below a prefix.
        leave_out: patterns of names right below the prefix, such as ``part-*``, of files and folders not needed.

    Raises:
        UsageError: no known kind of URL.
        DataError: the object store can't be reached or read.
    """
    url = as_url(place)
    if not url:
        return local_path(place)
    url = url.rstrip("/")
    for attempt in range(1, _TRIES + 1):
        try:
            return _copy(url, leave_out)
        except FileNotFoundError as error:
            if attempt == _TRIES:
                raise DataError(f"{url}: its files change while they are copied: {error}. Try again later.") from error
        except OSError as error:
            raise DataError(f"{url}: can't be copied to this machine: {error}.") from error
    raise AssertionError("the last try returns or raises")


def local_copies(places: Path | str | Sequence[Path | str]) -> list[Path]:
    """Return one place or several as ``local_copy`` does."""
    return [local_copy(place) for place in ([places] if isinstance(places, (Path, str)) else places)]


def cache_folder() -> Path:
    """Return the folder of all copies, which nobody else may read or write.

    Raises:
        UsageError: it is somebody else's, or can't be made.
    """
    folder = local_path(os.environ.get("FER_RAY_CACHE") or Path(tempfile.gettempdir()) / f"fer_ray-{os.getuid()}")
    if not folder.is_dir():
        make_folder(folder)
        folder.chmod(0o700)
    if folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder}: belongs to another user. Name a folder of your own by FER_RAY_CACHE.")
    return folder


def stored_files(filesystem: fs.FileSystem, prefix: str) -> list[StoredFile]:
    """Return the files below a prefix but for hidden ones, by name; those of a save under way as they will be.

    Raises:
        OSError: the store can't be read.
    """
    found = {
        info.path: info
        for info in filesystem.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True))
    }
    files = {path.removeprefix(f"{prefix}/"): path for path, info in found.items() if info.type == fs.FileType.File}
    if JOURNAL in files:
        journal = read_journal(filesystem, prefix)
        files |= {name: f"{prefix}/{PENDING}/{name}" for name in journal.write}
        files = {name: path for name, path in files.items() if name not in journal.remove}
    return [
        StoredFile(name, path, found[path].size, found[path].mtime_ns or 0)
        for name, path in sorted(files.items())
        if path in found and not any(part.startswith(".") for part in name.split("/"))
    ]


@dataclass(frozen=True)
class Journal:
    """What a save does once it is complete in ``PENDING``: names to write and to remove."""

    write: list[str]
    remove: list[str]


def read_journal(filesystem: fs.FileSystem, prefix: str) -> Journal:
    """Read the journal of a prefix that has one."""
    with filesystem.open_input_file(f"{prefix}/{JOURNAL}") as file:
        return Journal(**json.loads(file.read()))


def download(filesystem: fs.FileSystem, files: Iterable[StoredFile], folder: Path, url: str) -> None:
    """Copy files to a local folder, under their names.

    Raises:
        OSError: one can't be read, or written.
    """
    files = list(files)
    if not files:
        return

    def take(file: StoredFile) -> None:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.copy_files(file.path, str(target), filesystem, fs.LocalFileSystem())

    shown = sum(file.size for file in files) >= _SHOWN_BYTES
    progress = ProgressBar(f"Fetching {url}", len(files), "files") if shown else nullcontext()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool, progress as bar:
        for _ in pool.map(take, files):
            if bar:
                bar.advance()


def _copy(url: str, leave_out: Sequence[str]) -> Path:
    filesystem, path = locate(url)
    info = filesystem.get_file_info(path)
    is_file = info.type == fs.FileType.File
    if is_file:
        files = [StoredFile(path.rpartition("/")[2], path, info.size, info.mtime_ns or 0)]
    else:
        stored = stored_files(filesystem, path)
        files = [one for one in stored if not any(fnmatch(one.name.split("/")[0], other) for other in leave_out)]
    described = [url, [(file.name, file.size, file.changed) for file in files]]
    version = hashlib.sha256(json.dumps(described).encode())
    folder = cache_folder() / "inputs" / version.hexdigest()[:32]
    copy = folder / url.rpartition("/")[2]
    show_as(copy, url)
    if not files:
        require_bucket(url)
    if copy.exists():
        os.utime(folder)
    elif files:
        _forget_old(folder.parent)
        make_folder(folder)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                _take(filesystem, files, copy, url, is_file)
    return copy


def _forget_old(copies: Path) -> None:
    for folder in copies.glob("*"):
        if time.time() - folder.stat().st_mtime > _KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)


def _take(filesystem: fs.FileSystem, files: list[StoredFile], copy: Path, url: str, is_file: bool) -> None:
    if is_file:
        partial = copy.parent / ".partial"
        partial.mkdir(exist_ok=True)
        download(filesystem, files, partial, url)
        (partial / copy.name).rename(copy)
        with suppress(OSError):
            partial.rmdir()
        return
    with whole_folder(copy) as partial:
        download(filesystem, files, partial, url)
