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
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.images.image_files import MAX_BYTES, FileError, FileProblem, read_file
from fer_ray.sources.image_trees import IMAGE_SUFFIXES, is_ignored
from fer_ray.sources.table_columns import IMAGE_COLUMNS, find_column, holds_bytes
from fer_ray.sources.zip_files import list_members, read_member
from fer_ray.storage.object_store import ObjectFile, as_url

_BUFFER = 1 << 20
_ROW_GROUP_BYTES = 1 << 30  # a row group's images are held in memory together
_Member = tuple[str, tuple[int, ...], str]  # name, location and problem
_NAMED_AS_IMAGES = IMAGE_SUFFIXES | {".avif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".svg", ""}


class Entry(NamedTuple):
    """An image to score: a file, an object, or a member of a container."""

    name: bytes  # absolute path or URL; of a member, ``CONTAINER!/MEMBER``
    container: bytes = b""  # path or URL of the container; empty for a file of its own
    location: tuple[int, ...] = ()  # offsets and sizes in the container, in the order of its kind
    problem: str = ""  # ``STATUS: MESSAGE`` where listing found that it can't be read


def is_container(file: bytes) -> bool:
    """Return whether a file's suffix is that of a container."""
    return _suffix(file) in _KINDS


def _suffix(file: bytes) -> str:
    return PurePosixPath(os.fsdecode(file)).suffix.lower()


def list_container(container: bytes) -> Iterator[Entry | None]:
    """Yield the images in a container, by path or URL, and None for each member whose name isn't an image's.

    Where the container is damaged, the last entry is the container with the problem.
    """
    found = 0
    try:
        with open_anywhere(container) as file:
            for name, location, problem in _KINDS[_suffix(container)][0](file):
                found += 1
                if not is_ignored(name) and PurePosixPath(name).suffix.lower() in _NAMED_AS_IMAGES:
                    full_name = container + b"!/" + name.encode("utf-8", "surrogateescape")
                    yield Entry(full_name, container, location, problem)
                else:
                    yield None
    except FileNotFoundError:
        yield Entry(container, problem="missing: no such file")
    except (OSError, pa.ArrowException, zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        after = f" after {found:,} members" if found else ""
        yield Entry(container, problem=f"unreadable: can't be listed{after}: {error or type(error).__name__}")


def open_anywhere(path: bytes) -> IO[bytes]:
    """Open a local file or an object for random access; raises OSError."""
    url = as_url(os.fsdecode(path))
    return cast(IO[bytes], ObjectFile(url)) if url else open(path, "rb")  # noqa: PTH123 - names are bytes


def _list_tar(file: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=io.BufferedReader(cast(io.RawIOBase, file), _BUFFER), mode="r:") as archive:
        for member in archive:
            problem = ""
            if member.issparse() or not member.isreg():
                problem = "not_a_file: a link, device or sparse file in the .tar"
            elif member.size > MAX_BYTES:
                problem = f"too_large: {member.size:,} bytes, more than the {MAX_BYTES:,} allowed"
            if not member.isdir():
                yield member.name, (member.offset_data, member.size), problem
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


def _list_parquet(file: IO[bytes]) -> Iterator[_Member]:
    with pq.ParquetFile(file) as table:
        column, metadata, first = _image_column(table.schema_arrow), table.metadata, 0
        for group in range(metadata.num_row_groups):
            size, rows, problem = metadata.row_group(group).total_byte_size, metadata.row_group(group).num_rows, ""
            if size > _ROW_GROUP_BYTES:
                problem = (
                    f"too_large: row group {group} has {size:,} bytes, more than the {_ROW_GROUP_BYTES:,} that are held"
                    f" in memory; rewrite column {column} with smaller row groups"
                )
            yield from ((str(first + row), (group, row), problem) for row in range(rows))
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


_KINDS: dict[str, tuple[Callable[[IO[bytes]], Iterable[_Member]], Callable[[IO[bytes], Entry], bytes]]] = {
    ".zip": (list_members, lambda file, entry: read_member(file, entry.location)),
    ".tar": (_list_tar, _read_tar),
    ".parquet": (_list_parquet, _read_parquet),
}
"""What lists and what reads a container, by its suffix."""


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry; ``FileError``, with the kind of problem, if they can't be read."""
    if entry.problem:
        status, _, message = entry.problem.partition(": ")
        raise FileError(cast(FileProblem, status), message)
    if not entry.container:
        is_url = entry.name.startswith((b"s3://", b"gs://"))
        return _read_object(entry.name.decode()) if is_url else read_file(entry.name)
    try:
        _, read = _KINDS[_suffix(entry.container)]
        return read(_open_container(entry.container, threading.get_ident()), entry)
    except FileNotFoundError as error:
        raise FileError("missing", f"{os.fsdecode(entry.container)} is gone") from error
    except (OSError, pa.ArrowException) as error:
        raise FileError("unreadable", f"in its container: {error}") from error


@functools.lru_cache(maxsize=64)
def _open_container(container: bytes, thread: int) -> IO[bytes]:
    """Return a container, open for a thread; members are often read one after the other."""
    return open_anywhere(container)


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
