"""Outputs by path or URL: what shall lie in an object store is written to a local folder and saved from there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import fs

from fer_ray.console.messages import show_as
from fer_ray.errors import FerRayError
from fer_ray.storage.inputs import JOURNAL, PENDING, cache_folder, download, read_journal, stored_files
from fer_ray.storage.local import claim_output, local_path, make_folder, own_output
from fer_ray.storage.object_store import REQUESTS_AT_ONCE, as_url, locate, require_apart, require_free

SHARE_IT = "Put it on storage that all nodes have at the same path, or name an s3:// or gs:// URL."
"""What to do where a node doesn't see a place."""
_Stamp = tuple[int, int, int]


@dataclass
class Output:
    """A folder that a stage writes: ``path`` is where, and of a URL the local copy that ``save`` sends.

    An output can be sent to another process, on another machine too; there it begins with ``fetch``.

    Attributes:
        shown: the absolute path, or the URL.
        path: the local folder; of a URL one of this process alone.
    """

    shown: str
    path: Path
    _saved: dict[str, _Stamp] = field(default_factory=dict)  # what the store holds, as it lies in the folder

    @classmethod
    def at(cls, place: "Path | str | Output") -> "Output":
        """Return the output of a path or URL, which need not exist; an output as it is.

        Raises:
            UsageError: no known kind of URL.
        """
        if isinstance(place, Output):
            return place
        url = as_url(place)
        if not url:
            path = local_path(place)
            return cls(str(path), path)
        url = url.rstrip("/")
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        output = cls(url, cache_folder() / "outputs" / f"{os.getpid()}-{key}" / url.rpartition("/")[2])
        show_as(output.path, url)
        return output

    @property
    def place(self) -> Path | str:
        """What names it to another stage: the path, or the URL."""
        return self.shown if self.is_remote else self.path

    def file(self, name: str) -> Path | str:
        """Return the path or URL of a file in it."""
        return f"{self.shown}/{name}" if self.is_remote else self.path / name

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return as_url(self.shown) is not None

    def __setstate__(self, state: dict[str, Any]) -> None:
        fresh = Output.at(state["shown"])  # another machine has its copies elsewhere
        self.__dict__.update(state | {"path": fresh.path, "_saved": {}})

    def within(self, name: str) -> "Output":
        """Return a folder in it as an output of its own."""
        return Output.at(f"{self.shown}/{name}")

    def fetch(self) -> None:
        """Make the local folder what the store holds; does nothing for a path.

        Raises:
            FerRayError: the store can't be read.
        """
        if not self.is_remote:
            return
        filesystem, prefix = locate(self.shown)
        _sweep()
        with self._translate_errors():
            make_folder(self.path)
            for child in self.path.iterdir():
                if child.is_dir() and not child.name.startswith("."):
                    shutil.rmtree(child)
                elif not child.name.startswith("."):
                    child.unlink()
            download(filesystem, stored_files(filesystem, prefix), self.path, self.shown)
        self._saved = self._files()

    def save(self) -> None:
        """Let the store hold what the local folder does, but for hidden files; does nothing for a path.

        All changes since the last ``save`` or ``fetch`` appear together, whatever the moment of a kill: where they are
        several, they are sent to a hidden folder first, then a journal that names them, and only then are they moved.
        Readers, and the next ``save``, finish what a journal says.

        Raises:
            FerRayError: the store refuses; what was saved before is whole.
        """
        if not self.is_remote:
            return
        filesystem, prefix = locate(self.shown)
        now = self._files()
        write = [name for name, stamp in now.items() if self._saved.get(name) != stamp]
        remove = [name for name in self._saved if name not in now]
        with self._translate_errors(), ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            _finish(filesystem, prefix)
            if len(write) + len(remove) == 1:
                for name in write:
                    self._send(filesystem, name, f"{prefix}/{name}")
                for name in remove:
                    filesystem.delete_file(f"{prefix}/{name}")
            elif write or remove:
                list(pool.map(lambda name: self._send(filesystem, name, f"{prefix}/{PENDING}/{name}"), write))
                _write(filesystem, f"{prefix}/{JOURNAL}", json.dumps({"write": write, "remove": remove}).encode())
                _finish(filesystem, prefix)
        self._saved = now

    @contextmanager
    def owned(self, resume: bool, otherwise: str, is_begun: Callable[[], bool]) -> Iterator[None]:
        """Keep other processes of this machine from it, and leave nothing of a start that failed: see ``own_output``.

        Raises:
            UsageError: as there.
        """
        with own_output(self.path, resume, otherwise, is_begun):
            try:
                yield
            except Exception:
                if self.is_remote and not resume and not is_begun():
                    self.clear()
                raise

    def folders(self) -> list[str]:
        """Return the names of the folders right below it, in the store and not as they were fetched.

        Raises:
            FerRayError: the store can't be read.
        """
        filesystem, prefix = self._stored()
        with self._translate_errors():
            found = filesystem.get_file_info(fs.FileSelector(prefix, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def move(self, name: str, new: str) -> None:
        """Give a folder right below it another name; does nothing where it isn't there.

        Raises:
            FerRayError: the store refuses.
        """
        if not self.is_remote:
            if (self.path / name).is_dir():
                (self.path / name).rename(self.path / new)
            return
        filesystem, prefix = locate(self.shown)
        with self._translate_errors():
            for file in stored_files(filesystem, f"{prefix}/{name}"):
                filesystem.copy_file(file.path, f"{prefix}/{new}/{file.name}")
        self.within(name).clear()

    def clear(self) -> None:
        """Remove it, where it is there, with all that is in it.

        Raises:
            FerRayError: the store refuses.
        """
        filesystem, prefix = self._stored()
        with self._translate_errors():
            if filesystem.get_file_info(prefix).type == fs.FileType.Directory:
                filesystem.delete_dir(prefix)
        self.forget()

    def _stored(self) -> tuple[fs.FileSystem, str]:
        return locate(self.shown) if self.is_remote else (fs.LocalFileSystem(), self.shown)

    def forget(self) -> None:
        """Remove the local copy of what lies in an object store."""
        if self.is_remote:
            shutil.rmtree(self.path.parent, ignore_errors=True)
            self._saved = {}

    def _files(self) -> dict[str, _Stamp]:
        """The files of the local folder that aren't hidden, and what tells whether they have changed."""
        found = dict[str, _Stamp]()
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                stat = path.stat()
                found[name.as_posix()] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return found

    def _send(self, filesystem: fs.FileSystem, name: str, target: str) -> None:
        fs.copy_files(str(self.path / name), target, fs.LocalFileSystem(), filesystem)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FerRayError(
                f"{self.shown}: the object store doesn't do what it is asked: {error}. What was saved before is whole;"
                " once that is mended, go on with --resume where the stage has that."
            ) from error


@contextmanager
def claimed(place: Path | str, resume: bool = False, inputs: Iterable[Path | str] = ()) -> Iterator[Output]:
    """Check that an output is free to write to and yield it; of a URL with what it holds, where it is gone on with.

    The local copy of a URL is removed afterwards, whatever happens: what shall stay is what was saved.

    Raises:
        UsageError: there is something, while ``resume`` is False, or nothing while it is True; or it lies in an input.
        DataError: the object store can't be reached.
    """
    output = claim(place, resume, inputs)
    try:
        output.fetch()
        yield output
    finally:
        output.forget()


def claim(place: Path | str, resume: bool = False, inputs: Iterable[Path | str] = ()) -> Output:
    """Return an output that was checked as by ``claimed``, as yet without what it holds."""
    output = Output.at(place)
    if output.is_remote:
        filesystem, prefix = locate(output.shown)
        with output._translate_errors():
            held = stored_files(filesystem, prefix)
        require_free(output.shown, bool(held), resume)
    else:
        claim_output(output.path, resume)
    require_apart(output.shown, inputs)
    return output


def _sweep() -> None:
    """Remove what killed processes left."""
    for folder in (cache_folder() / "outputs").glob("*-*"):
        try:
            os.kill(int(folder.name.partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):  # not ours
            continue


def _finish(filesystem: fs.FileSystem, prefix: str) -> None:
    """Do what the journal of a prefix says, and remove what a kill left in the hidden folder."""
    pending = f"{prefix}/{PENDING}"
    if filesystem.get_file_info(f"{prefix}/{JOURNAL}").type == fs.FileType.File:
        journal = read_journal(filesystem, prefix)
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(lambda name: filesystem.copy_file(f"{pending}/{name}", f"{prefix}/{name}"), journal.write))
        for name in journal.remove:
            if filesystem.get_file_info(f"{prefix}/{name}").type == fs.FileType.File:
                filesystem.delete_file(f"{prefix}/{name}")
        filesystem.delete_file(f"{prefix}/{JOURNAL}")
    if filesystem.get_file_info(pending).type == fs.FileType.Directory:
        filesystem.delete_dir(pending)


def _write(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)
