"""Paths on this machine, and files and folders that are replaced as a whole."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fer_ray.errors import DataError, UsageError

LOCK_FILE = ".lock"
DATASET_FILE = "dataset.json"
PREPARE = "Make one with `fer-ray prepare SOURCE DEST`."
# pathlib turns the two slashes into one.
_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]+):(?://|/(?!/))(?P<rest>.*)", re.DOTALL)


def local_path(path: Path | str) -> Path:
    """Return an absolute local path; ``UsageError`` for a URL such as ``s3://bucket/folder``."""
    if url := split_url(path):
        raise UsageError(f"{'://'.join(url)}: this stage works on local paths, not URLs. Copy it to a local folder.")
    return Path(path).expanduser().absolute()


def split_url(path_or_url: Path | str) -> tuple[str, str] | None:
    """Return the scheme, in lower case, and the rest of a URL or of a ``Path`` of a URL; None for a local path."""
    match = _URL.fullmatch(str(path_or_url))
    return (match["scheme"].lower(), match["rest"]) if match else None


def require_dataset(folder: Path, path_or_url: Path | str) -> None:
    """Raise ``DataError``, with the name ``path_or_url``, if a folder doesn't look like a prepared dataset."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{path_or_url}: {what}. Expected the folder of a prepared dataset. {PREPARE}")
    if not (folder / DATASET_FILE).is_file():
        raise DataError(f"{path_or_url}: not a prepared dataset, {DATASET_FILE} is missing. {PREPARE}")


def make_folder(path: Path) -> None:
    """Make a folder, which may exist, and its parents; ``UsageError`` if it can't be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{path}: the folder can't be made: {error.strerror}. Choose an output where you may write."
        raise UsageError(problem) from error


@contextmanager
def whole_folder(dest: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a folder beside ``dest`` to write to; it becomes ``dest`` unless the block raises.

    A kill leaves the hidden ``.NAME.partial``, which the next call removes. With ``replace``, two renames replace an
    existing ``dest``; ``recover_folder`` undoes a kill between them.
    """
    partial, old = _beside(dest, "partial"), _beside(dest, "old")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        if replace and dest.exists():
            shutil.rmtree(old, ignore_errors=True)
            dest.rename(old)
        elif dest.is_dir():  # a new output, with at most the lock in it
            (dest / LOCK_FILE).unlink(missing_ok=True)
        partial.rename(dest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(dest: Path) -> None:
    """Restore the previous ``dest`` if a kill came between the two renames of ``whole_folder``."""
    old = _beside(dest, "old")
    if old.exists() and not dest.exists():
        with suppress(FileNotFoundError):  # another worker of the same run was faster
            old.rename(dest)


def remove_leftovers(dest: Path) -> None:
    """Remove what a kill left beside ``dest``; only for the one process that writes ``dest``."""
    recover_folder(dest)
    for suffix in ("partial", "old"):
        shutil.rmtree(_beside(dest, suffix), ignore_errors=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file; readers see the previous content or all of the new one."""
    partial = _beside(path, "partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")
