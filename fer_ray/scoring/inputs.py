"""List the images of a scoring job's inputs: folders, files, patterns, lists, containers and URLs.

===========================  ==========================================================================================
input                        its images
===========================  ==========================================================================================
a folder, ``s3://B/PREFIX``  every file below it, whatever its name, but for names that begin with a dot
a pattern                    what Python's ``glob`` matches: ``*`` and ``?`` within a name, ``**`` any folders; without
                             ``**`` a folder that it matches stands for all below it
.txt, .lst                   the path or URL on each line; or between NUL bytes, as ``find -print0`` writes them
.parquet                     image files' bytes in ``image``, or paths and URLs in ``path``
.zip, .tar                   the members that are called like images (``fer_ray.scoring.containers``)
any other file               itself
===========================  ==========================================================================================

Relative paths in a list start at the list's folder. A container that a pattern matches or a list names is opened as if
it were named itself; below a folder it is a file among others, as a list is below a folder, in a pattern or in a list.
An image that several inputs stand for is listed for each of them. Files in the job's own output are left out.
"""

import codecs
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from fer_ray.console.messages import redacted
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.images.image_files import list_files
from fer_ray.scoring.containers import Entry, is_container, list_container, open_anywhere
from fer_ray.sources.table_columns import IMAGE_COLUMNS, find_column, is_text
from fer_ray.storage.object_store import absolute, as_url, locate

PATH = ("path", "file", "filename", "file_name", "url", "uri")  # names of a column of paths or URLs
_LISTS = (".txt", ".lst")
_LINE_BYTES, _BLOCK_BYTES = 1 << 16, 1 << 20
_COMPRESSED = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")


def check_inputs(inputs: Sequence[Path | str]) -> list[str]:
    """Return the inputs as absolute paths and URLs.

    ``DataError`` if one is missing; ``UsageError`` if there is none, or one is a URL of an unknown kind.
    """
    if not inputs:
        raise UsageError("no INPUT: name folders, images, lists, .zip or .tar files, or s3:// or gs:// prefixes.")
    paths_or_urls = [absolute(given) for given in inputs]
    if problems := [problem for one in paths_or_urls if (problem := _problem(one))]:
        raise DataError(problems)
    return paths_or_urls


def list_entries(inputs: Sequence[str], on_skipped: Callable[[], None], output: str = "") -> Iterator[Entry]:
    """Yield the images of the inputs, as ``check_inputs`` returns them, in their order; ``DataError`` for a bad list.

    ``on_skipped`` is called for each member of a container whose name isn't an image's. ``output`` is the absolute path
    or URL of the job's output.
    """
    for entry in chain.from_iterable(map(_entries, inputs)):
        if entry is None:
            on_skipped()
        elif not _lies_in(os.fsdecode(entry.container or entry.name), output):
            yield entry


def _entries(path_or_url: str) -> Iterator[Entry | None]:
    """Yield the images of an input, and None for each member of a container that is skipped."""
    name, file = path_or_url.lower(), os.fsencode(path_or_url)
    if _is_pattern(path_or_url):
        yield from chain.from_iterable(map(_opened, _matching(path_or_url)))
    elif _info(path_or_url).type == fs.FileType.Directory if as_url(path_or_url) else Path(path_or_url).is_dir():
        yield from map(Entry, _below(path_or_url))
    elif name.endswith(_LISTS):
        yield from _listed(path_or_url, _lines(file))
    elif name.endswith(".parquet") and (column := _path_column(file)):
        yield from _listed(path_or_url, _cells(file, column))
    else:
        yield from _opened(file)


def _problem(path_or_url: str) -> str | None:
    if _COMPRESSED.search(path_or_url):
        return f"{path_or_url}: a compressed .tar, which can't be read at random. Unpack it to a .tar or a folder."
    url = as_url(path_or_url)
    if _is_pattern(path_or_url):
        exists = bool(url or next(_glob(path_or_url), None))
        problem = "matches no file. Correct the pattern"
    else:
        exists = _info(url).type != fs.FileType.NotFound if url else os.path.lexists(path_or_url)
        problem = "no such file or folder. Name an existing one"
    start = "" if url else f"; relative paths start at {Path.cwd()}"
    return None if exists else f"{path_or_url}: {problem}{start}."


def _info(url: str) -> fs.FileInfo:
    filesystem, path = locate(url)
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise DataError(f"{url}: can't be reached: {error}. Check name, network and credentials.") from error


def _below(folder: str) -> Iterator[bytes]:
    if not as_url(folder):
        yield from list_files([Path(folder)])
        return
    filesystem, path = locate(folder)
    scheme = folder.partition("://")[0]

    def listed(path: str, recursive: bool) -> list[fs.FileInfo]:
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=recursive))
        return sorted(
            (one for one in found if not any(part.startswith(".") for part in one.path[len(path) :].split("/"))),
            key=lambda one: one.path,
        )

    # By prefix, so that not all objects are in memory together.
    first = listed(path, recursive=False)
    folders = (listed(one.path, recursive=True) for one in first if one.type == fs.FileType.Directory)
    for found in chain(first, chain.from_iterable(folders)):
        if found.type == fs.FileType.File:
            yield os.fsencode(f"{scheme}://{found.path}")


def _is_pattern(path_or_url: str) -> bool:
    """Return whether it is a pattern; a local file whose name has such characters is itself meant."""
    return bool(_MAGIC.search(path_or_url)) and (as_url(path_or_url) is not None or not os.path.lexists(path_or_url))


def _glob(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207 - leaves out names that begin with a dot


def _matching(pattern: str) -> Iterator[bytes]:
    parts = pattern.split("/")
    any_depth = "**" in parts
    if as_url(pattern):
        first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
        for file in _below("/".join(parts[:first])):
            names = os.fsdecode(file).split("/")
            if any_depth:
                matches = fnmatchcase("/".join(names), pattern.replace("**/", "*"))  # this * also matches slashes
            else:
                matches = len(names) >= len(parts) and all(map(fnmatchcase, names, parts))
            if matches:
                yield file
        return
    for path in sorted(_glob(pattern)):
        if not Path(path).is_dir():
            yield os.fsencode(path)
        elif not any_depth:
            yield from _below(path)


def _lies_in(path_or_url: str, output: str) -> bool:
    """Return whether a file lies in the output, by whatever path."""
    if not (output.startswith("/") and path_or_url.startswith("/")):  # one is a URL, or there is no output
        return bool(output) and path_or_url.startswith(f"{output}/")
    return f"{_real_path(path_or_url.rpartition('/')[0])}/".startswith(f"{_real_path(output)}/")


_real_path = lru_cache(maxsize=4096)(os.path.realpath)


def _listed(name: str, lines: Iterator[bytes]) -> Iterator[Entry | None]:
    folder = name.rpartition("/")[0]
    for row, line in enumerate(lines):
        text = os.fsdecode(line)
        try:
            path_or_url = as_url(text) or (text if text.startswith("/") else f"{folder}/{text}")
        except FerRayError as error:
            # The name may hold a key or signature, and nothing can be read by it.
            yield Entry(os.fsencode(redacted(text)), problem=f"missing: {error}")
            continue
        if text:
            yield from _opened(os.fsencode(path_or_url))
        else:
            yield Entry(os.fsencode(f"{name}!/{row}"), problem="missing: the list has no path in this row")


def _opened(file: bytes) -> Iterator[Entry | None]:
    yield from list_container(file) if is_container(file) else [Entry(file)]


def _lines(file: bytes) -> Iterator[bytes]:
    name = os.fsdecode(file)
    try:
        with open_anywhere(file) as opened:
            end, rest = b"", opened.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
            if rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{name}: the list is in UTF-16. Save it as UTF-8.")
            while block := opened.read(_BLOCK_BYTES):
                end = end or (b"\0" if b"\0" in block else b"\n")
                *lines, rest = (rest + block).split(end)
                if len(rest) > _LINE_BYTES:
                    raise DataError(
                        f"{name}: a line has more than {_LINE_BYTES:,} bytes, so this is no list of paths. Rename"
                        " images that end in .txt."
                    )
                yield from filter(None, (line.removesuffix(b"\r") for line in lines))
            if line := rest.removesuffix(b"\r"):
                yield line
    except OSError as error:
        raise DataError(f"{name}: the list can't be read: {error}. Check it, or omit it.") from error


def _path_column(file: bytes) -> str | None:
    """Return the column of paths of a Parquet file without images; None where it is no list of paths."""
    try:
        with open_anywhere(file) as opened, pq.ParquetFile(opened) as table:
            schema = table.schema_arrow
    except (OSError, pa.ArrowException):
        return None  # listing it as a container says what is wrong
    column = find_column(schema, PATH)
    is_list = find_column(schema, IMAGE_COLUMNS) is None and column is not None and is_text(schema.field(column).type)
    return column if is_list else None


def _cells(file: bytes, column: str) -> Iterator[bytes]:
    try:
        with open_anywhere(file) as opened, pq.ParquetFile(opened) as table:
            for batch in table.iter_batches(columns=[column]):
                yield from (os.fsencode(cell or "") for cell in batch[0].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{os.fsdecode(file)}: the list can't be read: {error}. Write it again.") from error
