"""Output folders that may lie on this machine or in an object store: files by name, each whole or absent."""

import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from fer_ray.storage.local import claim_output, local_path, make_folder, recover_folder
from fer_ray.storage.object_store import REQUESTS_AT_ONCE, ObjectFile, as_url, locate, require_free

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


@dataclass(frozen=True)
class Folder:
    """A folder of files; names of files may hold one ``/``, for a folder in it.

    Attributes:
        shown: its absolute path or URL.
        filesystem: that it lies in.
        path: in that.
    """

    shown: str
    filesystem: fs.FileSystem
    path: str

    @classmethod
    def at(cls, place: Path | str) -> "Folder":
        """Return the folder at a local path or URL, which need not exist.

        Raises:
            UsageError: no known kind of URL.
            DataError: the object store can't be reached.
        """
        if url := as_url(place):
            return cls(url.rstrip("/"), *locate(url))
        path = str(local_path(place))
        return cls(path, fs.LocalFileSystem(), path)

    @property
    def local(self) -> Path | None:
        """The folder's path where it lies on this machine."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def make(self) -> None:
        """Make the folder and those above it, where they are on this machine; object stores have none to make."""
        if self.local:
            make_folder(self.local)

    def names(self, within: str = "") -> list[str]:
        """Return the names of the files in it, or in a folder of it, in order; none where it is absent."""
        start = f"{self.path}/{within}" if within else self.path
        found = self.filesystem.get_file_info(fs.FileSelector(start, allow_not_found=True))
        prefix = f"{within}/" if within else ""
        return sorted(prefix + info.base_name for info in found if info.type == fs.FileType.File)

    def is_empty(self) -> bool:
        """Say whether nothing is in it; a folder that is absent is empty."""
        return not self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))

    def exists(self, name: str) -> bool:
        """Say whether it has a file of that name."""
        return bool(self.filesystem.get_file_info(self._file(name)).type == fs.FileType.File)

    def open(self, name: str) -> io.IOBase:
        """Open a file to read anywhere in it.

        Raises:
            OSError: it can't be read.
        """
        return Path(self._file(name)).open("rb") if self.local else ObjectFile(f"{self.shown}/{name}")

    def read(self, name: str) -> bytes:
        """Return what is in a file.

        Raises:
            OSError: it can't be read.
        """
        with self.open(name) as file:
            content: bytes = file.read()
        return content

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file so that readers see all of it or the previous one."""
        data = content.encode() if isinstance(content, str) else content
        written = self._partial(name)
        self._make_folder_of(name)
        with self.filesystem.open_output_stream(written) as stream:
            stream.write(data)
        if written != self._file(name):
            self.filesystem.move(written, self._file(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write to; it becomes the file when the block ends well and has left it there."""
        with tempfile.TemporaryDirectory(prefix="fer_ray-") as elsewhere:
            path = Path(self._partial(name)) if self.local else Path(elsewhere) / Path(name).name
            try:
                yield path
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            if not path.exists():
                return
            if self.local:
                path.replace(self._file(name))
            else:
                fs.copy_files(str(path), self._file(name), fs.LocalFileSystem(), self.filesystem)

    @contextmanager
    def as_local(self, *names: str) -> Iterator[Path]:
        """Yield a local folder with those of the named files that there are; what is written in it is kept."""
        if self.local:
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="fer_ray-") as place:
            for name in names:
                if self.exists(name):
                    (Path(place) / name).write_bytes(self.read(name))
            yield Path(place)
            for file in Path(place).iterdir():
                self.write(file.name, file.read_bytes())

    def remove(self, *names: str) -> None:
        """Remove files; those that are absent don't matter."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(self._file(name))

        with ThreadPoolExecutor(1 if self.local else REQUESTS_AT_ONCE) as pool:
            list(pool.map(remove, names))

    def remove_folder(self, name: str) -> None:
        """Remove a folder in it with its files, where there is one."""
        if self.filesystem.get_file_info(self._file(name)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self._file(name))

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _partial(self, name: str) -> str:
        """Return where to write first: beside the file on a disk; an object appears when it is complete anyway."""
        if not self.local:
            return self._file(name)
        file = Path(self._file(name))
        return str(file.with_name(f".{file.name}.partial"))

    def _make_folder_of(self, name: str) -> None:
        if self.local and "/" in name:
            self.filesystem.create_dir(str(Path(self._file(name)).parent))


def claim_folder(place: Path | str, resume: bool = False) -> Folder:
    """Check that an output folder is free to write to, and return it without making it; as ``claim_output``.

    Raises:
        UsageError: it is in use while ``resume`` is False, or absent or empty while it is True.
        DataError: the object store can't be reached.
    """
    folder = Folder.at(place)
    if folder.local:
        claim_output(folder.local, resume)
        return folder
    require_free(folder.shown, not folder.is_empty(), resume)
    return folder
