"""Read images from files, from object stores, and from inside .zip, .tar (WebDataset's shards) and Parquet files.

A container is listed once, with the location of each member. Any process then reads members at their locations without
unpacking the container. A member is named ``CONTAINER!/MEMBER``, a row of Parquet ``CONTAINER!/ROW``, from 0. Members
of a .zip or .tar are images if they have an image's suffix or none; others (labels, captions) are skipped and counted.
"""

import functools
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import IO, NamedTuple, cast, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.images.image_files import MAX_BYTES, FileError, FileProblem, read_file
from fer_ray.sources import zip_files
from fer_ray.sources.image_trees import IMAGE_SUFFIXES, is_ignored
from fer_ray.sources.table_columns import IMAGE_COLUMNS, find_column, holds_bytes
from fer_ray.storage.object_store import ObjectFile, as_url

_own = threading.local()


_BUFFER = 1 << 20
_ROW_GROUP_BYTES = 1 << 30  # a row group's images are held in memory together
_NAMED_AS_IMAGES = IMAGE_SUFFIXES | {".avif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".svg", ""}


class Entry(NamedTuple):
    """An image to score: a file, an object, or a member of a container.

    Attributes:
        name: absolute path or URL; of a member, ``CONTAINER!/MEMBER``.
        container: path or URL of the container; empty for a file of its own.
        location: offsets and sizes in the container, in the order of its kind.
        problem: ``STATUS: MESSAGE`` where listing found that it can't be read, else empty.
    """

    name: bytes
    container: bytes = b""
    location: tuple[int, ...] = ()
    problem: str = ""


def is_container(name: str) -> bool:
    """Return whether a file's suffix is that of a container."""
    return PurePosixPath(name).suffix.lower() in _KINDS


def list_container(container: bytes, on_skipped: Callable[[], None]) -> Iterator[Entry]:
    """Yield the images in a container. Where it is damaged, the last entry is the container with the problem.

    Args:
        container: path or URL.
        on_skipped: called for each member whose name isn't an image's.
    """
    shown, found = os.fsdecode(container), 0
    try:
        with open_anywhere(container) as file:
            kind = _KINDS[PurePosixPath(shown).suffix.lower()]
            for member in kind.list(file, shown):
                found += 1
                if not kind.has_names or _is_named_as_image(member.name):
                    yield member._replace(container=container)
                else:
                    on_skipped()
    except FileNotFoundError:
        yield Entry(container, problem="missing: no such file")
    except (FileError, OSError, pa.ArrowException, zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        after = f" after {found:,} members" if found else ""
        text = error.message if isinstance(error, FileError) else str(error) or type(error).__name__
        yield Entry(container, problem=f"unreadable: can't be listed{after}: {text}")


@contextmanager
def open_anywhere(path: bytes) -> Iterator[IO[bytes]]:
    """Open a local file or an object for random access.

    Raises:
        OSError: it can't be read.
    """
    if url := as_url(os.fsdecode(path)):
        with ObjectFile(url) as opened:
            yield cast(IO[bytes], opened)
    else:
        with open(path, "rb") as opened:  # noqa: PTH123 - bytes, for names that are not UTF-8
            yield opened


class ContainerReader:
    """Reads members and keeps the last container open; for one thread."""

    def __init__(self) -> None:
        self._container = b""
        self._file: IO[bytes] = io.BytesIO()
        self._open = ExitStack()

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of a member.

        Raises:
            FileError: they can't be read.
        """
        suffix = PurePosixPath(os.fsdecode(entry.container)).suffix.lower()
        try:
            if entry.container != self._container:
                self._container = b""
                self._open.close()
                self._file = self._open.enter_context(open_anywhere(entry.container))
                self._container = entry.container
            return _KINDS[suffix].read(self._file, entry)
        except FileNotFoundError as error:
            raise FileError("missing", f"{os.fsdecode(entry.container)} is gone") from error
        except (OSError, pa.ArrowException) as error:
            raise FileError("unreadable", f"in its container: {error}") from error


def _list_zip(file: IO[bytes], shown: str) -> Iterator[Entry]:
    for member in zip_files.read_directory(file):
        location = tuple(member[name] for name in zip_files.LOCATION)
        yield Entry(_member_name(shown, member["path"]), location=location, problem=_with_status(member["problem"]))


def _read_zip(file: IO[bytes], entry: Entry) -> bytes:
    return zip_files.read_member(file, dict(zip(zip_files.LOCATION, entry.location, strict=True)))


def _list_tar(file: IO[bytes], shown: str) -> Iterator[Entry]:
    with tarfile.open(fileobj=io.BufferedReader(cast(io.RawIOBase, file), _BUFFER), mode="r:") as archive:
        for member in archive:
            if not member.isdir():
                location = (member.offset_data, member.size)
                yield Entry(_member_name(shown, member.name), location=location, problem=_tar_problem(member))
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them in memory
        file.seek(archive.offset)
        if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:  # tarfile accepts the end of the file in its place
            raise tarfile.ReadError("the .tar has no end mark, so it was cut off")


def _read_tar(file: IO[bytes], entry: Entry) -> bytes:
    offset, size = entry.location
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise FileError("unreadable", "the .tar ends before it")
    return data


def _list_parquet(file: IO[bytes], shown: str) -> Iterator[Entry]:
    with pq.ParquetFile(file) as table:
        column, metadata, first = _image_column(table.schema_arrow), table.metadata, 0
        for group in range(metadata.num_row_groups):
            size, rows = metadata.row_group(group).total_byte_size, metadata.row_group(group).num_rows
            too_large = (
                f"too_large: row group {group} has {size:,} bytes, more than the {_ROW_GROUP_BYTES:,} that are held in"
                f" memory; rewrite column {column} with smaller row groups"
            )
            for row in range(rows):
                problem = too_large if size > _ROW_GROUP_BYTES else ""
                yield Entry(_member_name(shown, str(first + row)), location=(group, row), problem=problem)
            first += rows


def _read_parquet(file: IO[bytes], entry: Entry) -> bytes:
    group, row = entry.location
    value = _row_group(entry.container, group)[row].as_py()
    if value is None:
        raise FileError("missing", "the row has no image")
    return bytes(value)


@functools.lru_cache(maxsize=2)
def _row_group(container: bytes, group: int) -> pa.ChunkedArray:
    with open_anywhere(container) as file, pq.ParquetFile(file) as table:
        name = _image_column(table.schema_arrow)
        column = table.read_row_group(group, columns=[name])[name].combine_chunks()
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _image_column(schema: pa.Schema) -> str:
    name = find_column(schema, IMAGE_COLUMNS)
    if name is None or not holds_bytes(schema.field(name).type):
        raise ValueError(
            f"none of its columns {', '.join(schema.names)} is called {', '.join(IMAGE_COLUMNS)} and holds bytes, and"
            " none that is called path names files"
        )
    return name


class _Kind(NamedTuple):
    list: Callable[[IO[bytes], str], Iterator[Entry]]
    read: Callable[[IO[bytes], Entry], bytes]
    has_names: bool


_KINDS = {
    ".zip": _Kind(_list_zip, _read_zip, True),
    ".tar": _Kind(_list_tar, _read_tar, True),
    ".parquet": _Kind(_list_parquet, _read_parquet, False),
}


def _is_named_as_image(name: bytes) -> bool:
    path = os.fsdecode(name)
    return not is_ignored(path) and PurePosixPath(path).suffix.lower() in _NAMED_AS_IMAGES


def _member_name(container: str, member: str) -> bytes:
    return os.fsencode(f"{container}!/") + member.encode("utf-8", "surrogateescape")


def _with_status(problem: str | None) -> str:
    if problem and problem.partition(":")[0] not in get_args(FileProblem):
        return f"unreadable: {problem}"
    return problem or ""


def _tar_problem(member: tarfile.TarInfo) -> str:
    if not member.isreg() or member.issparse():
        return "not_a_file: a link, device or sparse file in the .tar"
    if member.size > MAX_BYTES:
        return f"too_large: {member.size:,} bytes, more than the {MAX_BYTES:,} allowed"
    return ""


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry.

    Raises:
        FileError: they can't be read, with the kind of problem.
    """
    if entry.problem:
        status, _, message = entry.problem.partition(": ")
        raise FileError(cast(FileProblem, status), message)
    if entry.container:
        if not hasattr(_own, "containers"):
            _own.containers = ContainerReader()
        data: bytes = _own.containers.read(entry)
        return data
    return _read_object(entry.name.decode()) if entry.name.startswith((b"s3://", b"gs://")) else read_file(entry.name)


def _read_object(url: str) -> bytes:
    try:
        with ObjectFile(url) as file:
            if file.size() > MAX_BYTES:
                raise FileError("too_large", f"{file.size():,} bytes, more than the {MAX_BYTES:,} allowed")
            return file.readall()
    except FileNotFoundError as error:
        raise FileError("missing", "no such object") from error
    except (OSError, pa.ArrowException) as error:
        text = str(error).lower()
        raise FileError("timeout" if "timeout" in text or "timed out" in text else "unreadable", str(error)) from error
