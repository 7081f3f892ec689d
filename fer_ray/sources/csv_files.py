"""FER-2013 as CSV: ``fer2013.csv``, ``icml_face_data.csv``, and the competition's ``train.csv`` and ``test.csv``.

Columns are found by name, in any order, whatever their case and blanks, between commas, semicolons or tabs. ``pixels``
holds whole numbers 0 to 255 between blanks, rows of the image first; ``emotion`` or ``label`` a number or a name, or
nothing where the row is unlabelled; ``Usage`` the split. Tasks read ranges of some MB, so a file may be of any size. A
CSV inside a .zip or compressed by gzip is read by one task as a stream.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import pyarrow as pa

from fer_ray.errors import DataError, Problems
from fer_ray.images.decode import resize
from fer_ray.images.image_files import is_regular
from fer_ray.sources.image_trees import IMAGE_SUFFIXES, is_archive, is_ignored
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.split_names import SPLITS
from fer_ray.sources.table_columns import LABEL_COLUMNS, SPLIT_COLUMNS, TableLayout, find_columns, set_splits

_TASK_BYTES = 8 << 20
_PROBE_BYTES = 1 << 20
_HEADER_BYTES = 4096
_BUFFER_BYTES = 1 << 20  # a line of FER-2013 is longer than the default
_LINE_BYTES = 64 << 20  # a longer line is cut, so that a file without line ends doesn't fill the memory
_BATCH_ROWS = 2048
csv.field_size_limit(4 * _LINE_BYTES)  # a quoted image of 224 × 224 is longer than the default
_OFFICIAL_NAMES = ("fer2013.csv", "icml_face_data.csv")
_NOT_CSV = IMAGE_SUFFIXES | {".parquet"}
_GZIP = b"\x1f\x8b"
_LISTED_BYTES = 60  # of a line in a message
_UNPACKING_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""Exceptions of zipfile and gzip on files that are damaged, encrypted, or compressed by an unknown method."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: plain, compressed by gzip, or a member of a .zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def name(self) -> str:
        """Its path within a .zip, or its name in a folder."""
        return self.member or self.path.name

    @contextlib.contextmanager
    def open(self, archive: zipfile.ZipFile | None = None) -> Iterator[IO[bytes]]:
        """Open its uncompressed bytes; ``archive`` is the .zip if it is open already."""
        with contextlib.ExitStack() as stack:
            if self.member:
                archive = archive or stack.enter_context(zipfile.ZipFile(self.path))
                yield stack.enter_context(archive.open(self.member))
            else:
                file = stack.enter_context(cast(io.BufferedReader, self.path.open("rb", _BUFFER_BYTES)))
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if file.peek(2)[:2] == _GZIP else file


@dataclass
class _Layout(TableLayout):
    """The columns of a file, by their names in lower case, and what all its rows have in common."""

    file: CsvFile
    names: list[str]
    delimiter: str
    side: int  # of the square images, in pixels


def find_csv(path: Path) -> list[CsvFile]:
    """Return the files with a ``pixels`` column: the file itself, those directly in a folder, or the members of a .zip,
    whatever their names; ``DataError`` if a file that is named .csv can't be read.
    """
    found, is_zip = [], path.is_file() and zipfile.is_zipfile(path)
    with zipfile.ZipFile(path) if is_zip else contextlib.nullcontext() as archive:
        if archive:
            names = [name for name in dict.fromkeys(archive.namelist()) if not (name.endswith("/") or is_ignored(name))]
            files = [CsvFile(path, name) for name in names]
        else:
            # A hidden file counts if it is the source itself. Reading a pipe would wait for its writer.
            paths = sorted(path.glob("[!.]*")) if path.is_dir() else [path]
            files = [CsvFile(file) for file in paths if is_regular(file)]
        for file in (file for file in files if PurePosixPath(file.name).suffix.lower() not in _NOT_CSV):
            try:
                with file.open(archive) as stream:
                    if _header(stream.read(_HEADER_BYTES)):
                        found.append(file)
            except _UNPACKING_ERRORS as error:
                if file.name.lower().endswith(".csv"):
                    raise DataError(f"{file}: can't be read: {error}.") from error
    return found


def open_csv(path: Path, found: Sequence[CsvFile], options: NameOptions) -> Source:
    """Return CSV files as one source. Rows have numbers for ids; blank lines don't count.

    ``fer2013.csv`` or ``icml_face_data.csv`` is read alone, and a note names the files beside it. ``Usage`` gives the
    split of each row; without it the file's name does, then the name of the folder or .zip. Otherwise rows with labels
    are for training and rows without for the test. ``DataError`` if several files don't have names of splits; or a file
    isn't a readable CSV, has no rows, no square image, or a column that may hold labels under another name.
    """
    official = [[file for file in found if PurePosixPath(file.name).name.lower() == name] for name in _OFFICIAL_NAMES]
    files = next((files for files in official if len(files) == 1), found)
    problems, layouts = Problems(), list[_Layout]()
    for file in files:
        with problems.collect():
            layouts.append(_layout(file))
    problems.stop()
    notes = set_splits(path, layouts, options, path.is_file() and files[0].member is None)
    layouts.sort(key=lambda layout: SPLITS.index(layout.split))
    if unread := [file.name for file in found if file not in files]:
        notes.append(f"Read: {layouts[0].file.name}. Not read, though they hold images too: {', '.join(unread)}.")
    if path.is_dir() and (archives := sorted(file.name for file in path.iterdir() if is_archive(file.name))):
        notes.append(f"Not read: {', '.join(archives)}. Unpack what holds images.")
    has_usage = all(layout.split_column for layout in layouts)
    is_fer2013_form = has_usage and all(layout.label == "emotion" for layout in layouts)
    return Source(
        format="csv",
        name=str(path),
        manifest=[table for number, layout in enumerate(layouts) for table in _ranges(number, layout.file)],
        read=functools.partial(_read, layouts),
        notes=notes,
        has_usage=has_usage,
        number_order="fer2013.csv" if is_fer2013_form else "assumed",
    )


def first_line(start: bytes) -> str:
    """Return the first line of a file's first bytes as a message shows it: quoted, shortened."""
    line = re.split(rb"[\r\n]", start.removeprefix(codecs.BOM_UTF8), maxsplit=1)[0]
    return repr(line[:_LISTED_BYTES].decode("utf-8", "replace") + "…" * (len(line) > _LISTED_BYTES))


def _header(start: bytes) -> tuple[list[str], str] | None:
    """Return the names of the columns, in lower case, and the delimiter; None without a column ``pixels``."""
    if b"\0" in start:  # UTF-16, or a .tar inside of gzip
        return None
    line = re.split(rb"[\r\n]", start.removeprefix(codecs.BOM_UTF8), maxsplit=1)[0].decode("utf-8", "replace")
    for delimiter in ",;\t":
        names = [name.strip(' \t"').lower() for name in line.split(delimiter)]
        if "pixels" in names:
            return names, delimiter
    return None


def _layout(file: CsvFile) -> _Layout:
    try:
        with file.open() as stream:
            names, delimiter = _header(stream.readline(_LINE_BYTES)[:_HEADER_BYTES]) or ([], ",")
            rows = [_cells(line, delimiter) for line in _lines(stream, _PROBE_BYTES)]
    except _UNPACKING_ERRORS as error:
        raise DataError(f"{file}: can't be read: {error}.") from error
    if doubled := [name for name in ("pixels", *LABEL_COLUMNS, *SPLIT_COLUMNS) if names.count(name) > 1]:
        raise DataError(f"{file}: several columns are called {' and '.join(doubled)}. Leave one of each in the file.")
    columns = dict(zip(names, zip(*(cells for cells in rows if len(cells) == len(names)), strict=True), strict=False))
    counts = Counter(len(cell.split()) for cell in columns.get("pixels", ()))
    squares = {count: times for count, times in counts.items() if count and isqrt(count) ** 2 == count}
    if not squares:
        what = f"{next(iter(counts))} pixel values in the first row" if counts else "no data rows"
        raise DataError(f"{file}: {what}. Expected rows of {', '.join(names)}, with a square image such as 48 × 48.")
    side = isqrt(max(squares, key=lambda count: squares[count]))
    label, split = find_columns(
        names, "pixels", str(file), lambda unread: {name: {*columns[name]} - {""} for name in unread}
    )
    name = str(PurePosixPath(file.name).with_suffix(""))
    return _Layout(file, names, delimiter, side, name=name, label=label, split_column=split)


def _ranges(number: int, file: CsvFile) -> Iterator[pa.Table]:
    """Cut a file into ranges of bytes, a table each; what can only be read from the start is one range."""
    with file.open() as stream:
        is_plain = isinstance(stream, io.BufferedReader)
    step = _TASK_BYTES if is_plain else sys.maxsize
    for start in range(0, file.path.stat().st_size, step):
        yield pa.table({"file": [number], "start": [start], "end": [start + step]})


def _read(layouts: list[_Layout], ranges: pa.Table, size: int) -> Iterator[pa.Table]:
    for one in ranges.to_pylist():
        layout, rows = layouts[one["file"]], RowBuilder(size)
        try:
            with layout.file.open() as stream:
                stream.seek(max(one["start"] - 1, 0))
                stream.readline(_LINE_BYTES)  # the header, or the end of a line that begins in the previous range
                for number, line in enumerate(_lines(stream, one["end"] - stream.tell()), start=1):
                    _add_row(rows, line, layout, size)
                    if number % _BATCH_ROWS == 0:
                        yield rows.table()
        except _UNPACKING_ERRORS as error:
            rows.reject(None, str(layout.file), f"from here on the file can't be unpacked: {error}")
        yield rows.table()


def _lines(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """Yield the lines that begin in the next ``length`` bytes, without blank ones."""
    while length > 0 and (line := stream.readline(_LINE_BYTES)):
        length -= len(line)
        if not line.isspace():
            yield line.rstrip(b"\r\n")


def _cells(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "backslashreplace").replace("\r", " ")
    if '"' in text:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))]
    return [cell.strip() for cell in text.split(delimiter)]  # much faster


def _add_row(rows: RowBuilder, line: bytes, layout: _Layout, size: int) -> None:
    file, cells = str(layout.file), _cells(line, layout.delimiter)
    of = dict(zip(layout.names, cells, strict=False))
    try:
        if len(cells) != len(layout.names):
            raise ValueError(f"{len(cells)} column(s), {len(layout.names)} expected")
        pixels = _pixels(of["pixels"].encode(), layout.side)
    except ValueError as error:
        rows.reject(None, file, str(error))
    else:
        split = of[layout.split_column] if layout.split_column else layout.split
        label = of[layout.label] if layout.label else None
        rows.add(None, file, split, label, resize(pixels, size), layout.side, layout.side)


def _pixels(text: bytes, side: int) -> np.ndarray:
    if text.translate(None, b"0123456789 \t"):  # numpy would stop at it without an error
        wrong = next(word for word in text.split() if not word.isdigit()).decode("utf-8", "backslashreplace")
        raise ValueError(f"a pixel value is {wrong[:20]!r}, expected whole numbers 0 to 255 between blanks")
    values = np.fromstring(text, np.int64, sep=" ")
    if len(values) != side * side:
        raise ValueError(f"{len(values)} pixel values, {side * side} expected ({side} × {side})")
    if values.max() > 255:
        raise ValueError(f"a pixel value is {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(side, side)
