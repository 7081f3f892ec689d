"""FER-2013 as CSV: ``fer2013.csv``, ``icml_face_data.csv``, and the competition's ``train.csv`` and ``test.csv``.

Columns are found by name, in any order, whatever their case and blanks, between commas, semicolons or tabs. ``pixels``
holds whole numbers 0 to 255 between blanks, rows of the image first; ``emotion`` or ``label`` a number or a name, or
nothing where the row is unlabelled; ``Usage`` the split. Tasks read ranges of some MB, so a file may be of any size. A
CSV inside a .zip or compressed by gzip is read by one task as a stream.
"""

import codecs
import contextlib
import functools
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import pyarrow as pa
from pyarrow import csv

from fer_ray.errors import DataError, Problems
from fer_ray.images.decode import resize
from fer_ray.images.image_files import is_regular
from fer_ray.sources.image_trees import IMAGE_SUFFIXES, is_archive, is_ignored
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.split_names import SPLITS
from fer_ray.sources.table_columns import LABEL_COLUMNS, SPLIT_COLUMNS, find_columns, splits_of_tables

_TASK_BYTES = 8 << 20
_PROBE_BYTES = 1 << 20
_HEADER_BYTES = 4096
_BUFFER_BYTES = 1 << 20  # a line of FER-2013 is longer than the default
_LINE_BYTES = 64 << 20  # a longer line is cut, so that a file without line ends doesn't fill the memory
_BATCH_ROWS = 2048
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


@dataclass(frozen=True)
class _Layout:
    """The columns of a file, by their names in lower case, and what all its rows have in common."""

    file: CsvFile
    names: list[str]
    delimiter: str
    side: int  # of the square images, in pixels
    label: str | None
    split_column: str | None
    split: str = ""  # of all rows, in a file without a column of splits


def find_csv(path: Path) -> list[CsvFile]:
    """Return the files with a ``pixels`` column: the file itself, those directly in a folder, or the members of a .zip,
    whatever their names.

    Raises:
        DataError: a file that is named .csv can't be read.
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
    are for training and rows without for the test.

    Raises:
        DataError: several files don't have names of splits; or a file isn't a readable CSV, has no rows, no square
            image, or a column that may hold labels under another name.
    """
    official = [[file for file in found if PurePosixPath(file.name).name.lower() == name] for name in _OFFICIAL_NAMES]
    files = next((files for files in official if len(files) == 1), found)
    problems, layouts = Problems(), list[_Layout]()
    for file in files:
        with problems.collect():
            layouts.append(_layout(file))
    problems.stop()
    tables = [
        (str(PurePosixPath(layout.file.name).with_suffix("")), layout.label, layout.split_column) for layout in layouts
    ]
    splits, notes = splits_of_tables(path, tables, options, path.is_file() and files[0].member is None)
    layouts = [replace(layout, split=split) for layout, split in zip(layouts, splits, strict=True)]
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
            names, delimiter = _header(stream.readline(_LINE_BYTES)[:_HEADER_BYTES]) or ([], "")
            lines = [line for lines in _read_lines(stream, _PROBE_BYTES) for line in lines]
    except _UNPACKING_ERRORS as error:
        raise DataError(f"{file}: can't be read: {error}.") from error
    if doubled := [name for name in ("pixels", *LABEL_COLUMNS, *SPLIT_COLUMNS) if names.count(name) > 1]:
        raise DataError(f"{file}: several columns are called {' and '.join(doubled)}. Leave one of each in the file.")
    columns, _ = _split_fields(lines, names, delimiter)
    counts = Counter(len(cell.split()) for cell in columns["pixels"])
    squares = {count: times for count, times in counts.items() if count and isqrt(count) ** 2 == count}
    if not squares:
        what = f"{next(iter(counts))} pixel values in the first row" if counts else "no data rows"
        raise DataError(f"{file}: {what}. Expected rows of {', '.join(names)}, with a square image such as 48 × 48.")
    side = isqrt(max(squares, key=lambda count: squares[count]))
    label, split = find_columns(
        names, "pixels", str(file), lambda unread: {name: set(map(_text, columns[name])) - {""} for name in unread}
    )
    return _Layout(file, names, delimiter, side, label, split)


def _ranges(number: int, file: CsvFile) -> Iterator[pa.Table]:
    """Cut a file into ranges of bytes, a table each; what can only be read from the start is one range."""
    with file.open() as stream:
        is_plain = isinstance(stream, io.BufferedReader)
    step = _TASK_BYTES if is_plain else sys.maxsize
    for start in range(0, file.path.stat().st_size, step):
        yield pa.table({"file": [number], "start": [start], "end": [start + step]})


def _read(layouts: list[_Layout], ranges: pa.Table, size: int) -> Iterator[pa.Table]:
    for one in ranges.to_pylist():
        layout = layouts[one["file"]]
        try:
            with layout.file.open() as stream:
                stream.seek(max(one["start"] - 1, 0))
                stream.readline(_LINE_BYTES)  # the header, or the end of a line that begins in the previous range
                for lines in _read_lines(stream, one["end"] - stream.tell()):
                    yield _parse_rows(lines, layout, size)
        except _UNPACKING_ERRORS as error:
            rows = RowBuilder(size)
            rows.reject(None, str(layout.file), f"from here on the file can't be unpacked: {error}")
            yield rows.table()


def _read_lines(stream: IO[bytes], length: int) -> Iterator[list[bytes]]:
    """Yield the lines that begin in the next ``length`` bytes, without blank ones, up to ``_BATCH_ROWS`` at once."""
    lines = list[bytes]()
    try:
        while length > 0 and (line := stream.readline(_LINE_BYTES)):
            length -= len(line)
            if not line.isspace():
                lines.append(line.rstrip(b"\r\n"))
            if len(lines) == _BATCH_ROWS:
                yield lines
                lines = []
    except _UNPACKING_ERRORS:
        yield lines
        raise
    if lines:
        yield lines


def _split_fields(
    lines: list[bytes], names: Sequence[str], delimiter: str, quote: str | bool = '"'
) -> tuple[dict[str, list[bytes]], dict[int, str]]:
    """Return the columns of the valid lines, and by position the reasons why other lines are invalid."""
    invalid = dict[int, str]()

    def reject(row: csv.InvalidRow) -> str:
        invalid[row.number - 1] = f"{row.actual_columns} column(s), {row.expected_columns} expected"
        return "skip"

    # An invalid row has to be UTF-8, or its handler isn't called.
    text = b"\n".join(lines).replace(b"\r", b" ").decode("utf-8", "replace").encode()
    if not text:
        return {name: [] for name in names}, invalid
    numbers = [str(number) for number in range(len(names))]  # the file's own names may not be unique
    table = csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(use_threads=False, column_names=numbers, block_size=len(text) + 1),
        csv.ParseOptions(delimiter=delimiter, quote_char=quote, invalid_row_handler=reject),
        csv.ConvertOptions(column_types=dict.fromkeys(numbers, pa.binary()), strings_can_be_null=False),
    )
    if quote and len(table) + len(invalid) != len(lines):  # an open quotation mark has swallowed the next lines
        return _split_fields(lines, names, delimiter, quote=False)
    return dict(zip(names, (column.to_pylist() for column in table.columns), strict=True)), invalid


def _text(cell: bytes) -> str:
    return _unquoted(cell).decode("utf-8", "backslashreplace")


def _unquoted(cell: bytes) -> bytes:
    """Return a cell without blanks and quotation marks around it."""
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[:1] == cell[-1:] == b'"' else cell


def _parse_rows(lines: list[bytes], layout: _Layout, size: int) -> pa.Table:
    columns, invalid = _split_fields(lines, layout.names, layout.delimiter)
    valid = zip(*columns.values(), strict=True)
    rows, file = RowBuilder(size), str(layout.file)
    for position in range(len(lines)):
        try:
            if position in invalid:
                raise ValueError(invalid[position])
            of = dict(zip(columns, next(valid), strict=True))
            split = _text(of[layout.split_column]) if layout.split_column else layout.split
            label = _text(of[layout.label]) if layout.label else None
            pixels = _pixels(_unquoted(of["pixels"]), layout.side)
        except ValueError as error:
            rows.reject(None, file, str(error))
        else:
            rows.add(None, file, split, label, resize(pixels, size), layout.side, layout.side)
    return rows.table()


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
