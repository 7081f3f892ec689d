"""Image files on a disk: listing trees, and reading files that may be pipes, circular links or far too large.

Paths are bytes, because names may not be UTF-8; ``path_text`` makes text of them.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

AHEAD = 16
"""Folders asked at once: network drives and object stores answer in milliseconds each, however many are asked."""
RUN = 100_000
"""Names that are held and sorted at once. A larger folder comes in runs of so many, each in order."""

_Entry = tuple[bytes, bool]  # path, and whether it is a folder


@dataclass(frozen=True)
class Content:
    """What a folder holds.

    Attributes:
        identity: the same for the same folder by another path; None where that can't be.
        runs: lists of (path, whether it is a folder), up to ``RUN`` each.
    """

    identity: Hashable | None
    runs: Iterator[list[_Entry]]


def runs_of(entries: Iterator[_Entry]) -> Iterator[list[_Entry]]:
    """Cut entries into sorted lists of up to ``RUN``."""
    while run := list(islice(entries, RUN)):
        yield sorted(run)


def walk(
    root: bytes,
    list_folder: Callable[[bytes], Content],
    unlistable: Callable[[OSError], None] | None = None,
) -> Iterator[bytes]:
    """Yield the files below a folder: those in it by name, then those of each folder in it, by name.

    Links are followed, but for those that lead to a folder above themselves. Memory holds the names of a run, and the
    folders that are still to be listed.

    Args:
        root: the folder.
        list_folder: lists one; called in threads; may raise ``OSError``.
        unlistable: told about each folder that can't be listed; without it such a folder is yielded itself, so that
            reading it says why.
    """
    pending: list[tuple[bytes, frozenset[Hashable]]] = [(root, frozenset())]  # with the identities of those above
    asked = dict[bytes, Future[_Listed]]()
    with ThreadPoolExecutor(AHEAD, "listing") as pool:
        while pending:
            for path, _ in islice(reversed(pending), AHEAD):
                if path not in asked and len(asked) < 2 * AHEAD:
                    asked[path] = pool.submit(_first_run, path, list_folder)
            (path, above), folders = pending.pop(), list[bytes]()
            try:
                content, run = (asked.pop(path, None) or pool.submit(_first_run, path, list_folder)).result()
                if content.identity in above:
                    continue
                above |= {content.identity} - {None}
                while run:
                    yield from (found for found, is_folder in run if not is_folder)
                    folders += [found for found, is_folder in run if is_folder]
                    run = next(content.runs, [])
            except OSError as error:
                if unlistable is None:
                    yield path
                else:
                    unlistable(error)
            pending.extend((folder, above) for folder in reversed(folders))


_Listed = tuple[Content, list[_Entry]]


def _first_run(path: bytes, list_folder: Callable[[bytes], Content]) -> _Listed:
    content = list_folder(path)
    return content, next(content.runs, [])


FileProblem = Literal["missing", "not_a_file", "too_large", "timeout", "unreadable"]
"""Why a file can't be read: it doesn't exist; it is a folder, pipe or device; it has more than ``MAX_BYTES``; no answer
in time; anything else."""

MAX_BYTES = 256 << 20
"""The limit for the size of an image file, in a folder or in an archive."""


class FileError(Exception):
    """A file can't be read.

    Args:
        kind: the kind of problem.
        message: the problem, for people.
    """

    def __init__(self, kind: FileProblem, message: str):
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def path_text(path: bytes) -> str:
    """Return a path as text, a byte that isn't UTF-8 as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def is_regular(path: Path) -> bool:
    """Return whether a path, or its link's target, is an ordinary file; False if it can't be read."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def read_file(path: bytes) -> bytes:
    """Return the content of an ordinary file; a pipe is refused without waiting for its writer.

    Raises:
        FileError: the file can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with io.FileIO(descriptor) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileError("not_a_file", f"not a regular file (mode {stat.filemode(status.st_mode)})")
            if status.st_size > MAX_BYTES:
                raise FileError("too_large", f"{status.st_size:,} bytes, more than the {MAX_BYTES:,} allowed")
            return file.readall()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError("missing", error.strerror or str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EISDIR):
            what = "a folder" if error.errno == errno.EISDIR else "a socket or device"
            raise FileError("not_a_file", what) from error
        raise FileError("unreadable", error.strerror or str(error)) from error


def list_files(
    inputs: Sequence[Path],
    unlistable: Callable[[OSError], None] | None = None,
    reached: Callable[[bytes, Hashable], None] | None = None,
) -> Iterator[bytes]:
    """Yield the files below the inputs, in the order of inputs; those of a folder before those of the folders in it.

    Everything that is not a folder counts, whatever its name: images, other files, dangling links, pipes. Names that
    begin with a dot are left out. Links to folders are followed, but for those that lead to a folder above themselves.

    Args:
        inputs: folders and files.
        unlistable: as in ``fer_ray.images.image_files.walk``.
        reached: told of each folder before it is listed: its path and its identity, the same by whatever path.
    """
    for path in inputs:
        if path.is_dir():
            yield from walk(os.fsencode(path), partial(_list_folder, reached), unlistable)
        else:
            yield os.fsencode(path)


def _list_folder(reached: Callable[[bytes, Hashable], None] | None, path: bytes) -> Content:
    identity = identity_of(path)
    if reached:
        reached(path, identity)
    return Content(identity, runs_of(_entries(path)))


def identity_of(path: bytes) -> Hashable:
    """Return what is the same for a folder by whatever path it is reached.

    Raises:
        OSError: it isn't there.
    """
    status = os.stat(path)  # noqa: PTH116 - bytes, for names that are not UTF-8
    return status.st_dev, status.st_ino


def _entries(path: bytes) -> Iterator[tuple[bytes, bool]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name[:1] != b".":
                yield entry.path, _is_folder(entry)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()  # without asking for the status of ordinary files
    except OSError:  # a link that leads to itself; reading it will say so
        return False
