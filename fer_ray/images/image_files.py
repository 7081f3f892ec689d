"""Image files on a disk: listing trees, and reading files that may be pipes, circular links or far too large.

Paths are bytes, because names may not be UTF-8; ``path_text`` makes text of them.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

_Unread = Literal["missing", "not_a_file", "too_large", "timeout", "unreadable"]
FileProblem = _Unread | Literal["empty", "not_an_image", "truncated", "damaged", "undecodable"]
"""Why a file gives no image: it doesn't exist; it is a folder, pipe or device; it has too many bytes or pixels; no
answer in time; it can't be read. It is empty; of no known format; its end is missing; the JPEG decoder reports corrupt
data, though not all damage is found, as a JPEG has no checksum; anything else."""

MAX_BYTES = 256 << 20
"""The limit for the size of an image file, in a folder or in an archive."""


class FileError(Exception):
    """A file can't be read; the kind is a ``FileProblem``, the message is for people."""

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
    """Return the content of an ordinary file; ``FileError`` if it can't be read, or at once if it is a pipe."""
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


def list_files(inputs: Sequence[Path], unlistable: Callable[[OSError], None] | None = None) -> Iterator[bytes]:
    """Yield the files below folders: those of a folder by name, then those of each folder in it, by name.

    Everything that is not a folder counts, whatever its name: images, other files, dangling links, pipes. Names that
    begin with a dot are left out. Links to folders are followed, but for those that lead to a folder above themselves.
    Inputs that are files are yielded themselves. ``unlistable`` is called for each folder that can't be listed; without
    it such a folder is yielded itself, so that reading it says why.
    """
    for path in map(os.fsencode, inputs):
        if not Path(os.fsdecode(path)).is_dir():
            yield path
            continue
        above, failed = {path: frozenset({_identity(path)})}, list[OSError]()
        for folder, folders, files in os.walk(path, onerror=unlistable or failed.append, followlinks=True):
            yield from (error.filename for error in failed)
            failed.clear()
            yield from (os.path.join(folder, name) for name in sorted(files) if name[:1] != b".")  # noqa: PTH118 - bytes
            passed, inside = above.pop(folder), list[bytes]()
            for name in sorted(name for name in folders if name[:1] != b"."):
                child = os.path.join(folder, name)  # noqa: PTH118
                if (identity := _identity(child)) not in passed:
                    above[child] = passed | {identity}
                    inside.append(name)
            folders[:] = inside
        yield from (error.filename for error in failed)


def _identity(folder: bytes) -> tuple[int, int]:
    """Return what is the same for a folder by whatever path it is reached."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - bytes, for names that are not UTF-8
    except OSError:  # listing it will say so
        return -1, -1
    return status.st_dev, status.st_ino
