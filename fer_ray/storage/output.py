"""The folder that a stage writes, on this machine or in an object store.

In an object store a folder that is replaced while a job runs, such as ``last/``, is written once, into a new numbered
folder inside of it. Then the small file ``.current`` names that numbered folder. Readers follow ``.current``, so they
see the previous folder or the new one, whenever the writer is killed. Other files have their own names.
"""

import fcntl
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from fer_ray.console.messages import is_uploaded
from fer_ray.errors import FerRayError, UsageError
from fer_ray.storage.inputs import CURRENT_FILE, INCOMPLETE_FILE, cache_folder, download, read_current, stored_files
from fer_ray.storage.local import LOCK_FILE, local_path, make_folder, whole_folder, write_whole
from fer_ray.storage.object_store import ObjectFile, as_url, locate, require_apart, require_bucket

SHARE_IT = "Put it on storage that all nodes have at the same path, or give an s3:// or gs:// URL."
"""The remedy where a node doesn't see a path."""


@dataclass(frozen=True)
class Output:
    """A folder that a stage writes. It can be sent to other processes, on other machines too."""

    path_or_url: str  # the absolute path or the URL, without a slash at the end

    @classmethod
    def at(cls, path_or_url: "Path | str | Output") -> "Output":
        """Return the output at a path or URL, which need not exist; raises as ``as_url``."""
        if isinstance(path_or_url, Output):
            return path_or_url
        url = as_url(path_or_url)
        return cls(url.rstrip("/") if url else str(local_path(path_or_url)))

    @property
    def is_remote(self) -> bool:
        """Whether the output is in an object store."""
        return as_url(self.path_or_url) is not None

    @property
    def path(self) -> Path:
        """The folder on this machine; of a URL the working copy of this process, for ``fetch`` and ``save``."""
        if not self.is_remote:
            return Path(self.path_or_url)
        # Messages about a file in the copy then show the URL too.
        return self._cache / str(os.getpid()) / self.path_or_url.replace("://", "/")

    @property
    def _cache(self) -> Path:
        return cache_folder() / "outputs" / hashlib.sha256(self.path_or_url.encode()).hexdigest()[:32]

    def file(self, name: str = "") -> Path | str:
        """Return the path or URL of a file in the output; without a name, of the output itself."""
        return f"{self.path_or_url}/{name}".rstrip("/") if self.is_remote else self.path / name

    def within(self, name: str) -> "Output":
        """Return a folder in the output as an output of its own."""
        return Output(f"{self.path_or_url}/{name}")

    def names(self, kind: fs.FileType = fs.FileType.File) -> list[str]:
        """Return the names of the files directly in the output, sorted; empty if it is absent."""
        filesystem, path = self._located()
        with self._store_errors():
            found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == kind)

    def folders(self) -> list[str]:
        """Return the names of the folders directly in the output, sorted; empty if it is absent."""
        return self.names(fs.FileType.Directory)

    def exists(self, name: str) -> bool:
        """Return whether the output has a file of that name."""
        filesystem, path = self._located(name)
        with self._store_errors():
            return bool(filesystem.get_file_info(path).type == fs.FileType.File)

    def open(self, name: str) -> io.IOBase:
        """Open a file for random access; ``OSError`` if it can't be read."""
        return ObjectFile(f"{self.path_or_url}/{name}") if self.is_remote else (self.path / name).open("rb")

    def read(self, name: str) -> bytes:
        """Return the content of a file; ``OSError`` if it can't be read."""
        with self.open(name) as file:
            content: bytes = file.read()
        return content

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file; readers see the previous content or all of the new one. ``OSError`` if it can't be written."""
        if self.is_remote:
            _put(*self._located(name), content.encode() if isinstance(content, str) else content)
        else:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / name, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write to. What the block leaves there becomes the file, unless the block raises."""
        with tempfile.TemporaryDirectory(prefix="fer_ray-") as temporary:
            path = Path(temporary) / name if self.is_remote else self.path / f".{name}.partial"
            try:
                yield path
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            if path.exists() and self.is_remote:
                _upload(path, *self._located(name))
            elif path.exists():
                path.replace(self.path / name)

    def remove(self, *names: str) -> None:
        """Remove files; absent ones are ignored."""
        for name in names:
            _remove(*self._located(name))

    def clear(self) -> None:
        """Remove the output with all that is in it; does nothing if it is absent."""
        with self._store_errors():
            _remove(*self._located())
        self.forget()

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """Yield a local folder to write to; it becomes the output, which is new, unless the block raises.

        In an object store the output is absent for readers while it holds the file ``.incomplete``.
        """
        self.forget()
        with whole_folder(self.path) as partial:
            yield partial
        if self.is_remote:
            with self._store_errors():
                filesystem, folder = self._located()
                _remove(filesystem, folder)  # what a kill left
                _put(filesystem, f"{folder}/{INCOMPLETE_FILE}", b"")
                _upload(self.path, filesystem, folder)
                filesystem.delete_file(f"{folder}/{INCOMPLETE_FILE}")

    def fetch(self, *names: str) -> None:
        """Make the working copy of a URL equal to the output; with names, only those files and folders in it."""
        if self.is_remote:
            make_folder(self.path)
            for name in names or [path.name for path in self.path.iterdir()]:
                _remove(fs.LocalFileSystem(), str(self.path / name))
            with self._store_errors():
                download(self.path_or_url, self.path, lambda name: not names or name.split("/")[0] in names)

    def save(self, *names: str) -> None:
        """Write files and folders of the working copy of a URL to the object store, one after the other.

        Each is replaced as a whole. One that the working copy doesn't have is removed.
        """
        if self.is_remote:
            filesystem, folder = self._located()
            os.utime(self._cache)  # or it would be taken for an old copy
            with self._store_errors():
                for name in names:
                    source, target = self.path / name, f"{folder}/{name}"
                    if source.is_dir():
                        _replace_folder(source, filesystem, target)
                    elif source.is_file():
                        _upload(source, filesystem, target)
                    else:
                        _remove(filesystem, target)

    def forget(self) -> None:
        """Remove the working copy of a URL."""
        if self.is_remote:
            shutil.rmtree(self._cache / str(os.getpid()), ignore_errors=True)

    def require_usable(self, resume: bool = False, inputs: Iterable[Path | str] = ()) -> None:
        """Check that a stage may write the output; arguments and errors as of ``open_output``."""
        if self.is_remote:
            with self._store_errors():
                in_use = bool(stored_files(*self._located()))
            if not in_use:
                require_bucket(self.path_or_url)
        else:
            if is_uploaded(self.path):
                raise UsageError(f"{self.path_or_url}: this output would be lost after the job.")
            if self.path.exists() and not self.path.is_dir():
                raise UsageError(f"{self.path_or_url}: is a file; an output folder was expected. Choose another path.")
            in_use = self.path.is_dir() and any(path.name != LOCK_FILE for path in self.path.iterdir())
        if in_use and not resume:
            raise UsageError(
                f"{self.path_or_url}: the output is in use, and nothing is overwritten. Choose a new one, or continue"
                " this one by --resume where the stage has that option."
            )
        if resume and not in_use:
            raise UsageError(f"{self.path_or_url}: nothing to resume, it is missing or empty. Leave out --resume.")
        require_apart(self.path_or_url, inputs)

    def _located(self, name: str = "") -> tuple[fs.FileSystem, str]:
        filesystem, folder = locate(self.path_or_url) if self.is_remote else (fs.LocalFileSystem(), self.path_or_url)
        return filesystem, f"{folder}/{name}" if name else folder

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.is_remote:
                raise
            raise FerRayError(
                f"{self.path_or_url}: the object store refused the request: {error}. What was saved before is whole;"
                " correct the cause, then continue by --resume where the stage has that option."
            ) from error


@contextmanager
def open_output(
    path_or_url: Path | str | Output,
    resume: bool = False,
    inputs: Iterable[Path | str] = (),
    is_resumable: Callable[[Output], object] = lambda output: False,
) -> Iterator[Output]:
    """Check that a stage may write an output, keep other processes of this machine from it, and yield it.

    If the block raises before there is anything to resume, by ``is_resumable``, a new output is left as it was: absent
    or empty.

    Raises:
        UsageError: the output is in use, or with ``resume`` there is nothing to resume; or it is inside one of the
            inputs or in the uploaded working directory of a job, which Ray removes; or the folder can't be made.
        DataError: there is no such bucket, or the object store can't be reached.
        FerRayError: the object store refused a request.
    """
    output = Output.at(path_or_url)
    output.require_usable(resume, inputs)
    existed = output.path.is_dir()
    with _locked(output):
        output.require_usable(resume)  # again, as another process may have been faster
        try:
            yield output
        except (Exception, KeyboardInterrupt):
            if not resume and not is_resumable(output):
                if existed and not output.is_remote:
                    for path in output.path.iterdir():
                        _remove(fs.LocalFileSystem(), str(path))
                else:
                    output.clear()
            raise
        finally:
            output.forget()


@contextmanager
def _locked(output: Output) -> Iterator[None]:
    lock = (output._cache if output.is_remote else output.path) / LOCK_FILE
    make_folder(lock.parent)
    with ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{output.path_or_url}: another process is writing there. Wait for its end or stop it, then --resume."
            ) from None
        except OSError as error:
            raise UsageError(f"{lock}: can't be locked: {error.strerror}. Choose an output you may write.") from error
        yield


def _replace_folder(source: Path, filesystem: fs.FileSystem, folder: str) -> None:
    """Write a folder into a new numbered folder, let the pointer name it, and remove those before it."""
    number = int(read_current(filesystem, folder)[1:7] or 0) + 1
    # Not the number alone: a worker that was taken for dead may still be writing.
    name = f".{number:06d}-{uuid.uuid4().hex[:8]}"
    _upload(source, filesystem, f"{folder}/{name}")
    _put(filesystem, f"{folder}/{CURRENT_FILE}", name.encode())
    for info in filesystem.get_file_info(fs.FileSelector(folder)):
        if info.type == fs.FileType.Directory and info.base_name < f".{number:06d}":
            filesystem.delete_dir(info.path)


def _upload(source: Path, filesystem: fs.FileSystem, target: str) -> None:
    fs.copy_files(str(source), target, fs.LocalFileSystem(), filesystem)


def _put(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _remove(filesystem: fs.FileSystem, path: str) -> None:
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.File:
        filesystem.delete_file(path)
    elif kind == fs.FileType.Directory:
        with suppress(FileNotFoundError):  # first: without it readers take the folder for absent
            filesystem.delete_file(f"{path}/{CURRENT_FILE}")
        filesystem.delete_dir(path)
