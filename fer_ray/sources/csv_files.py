"""FER-2013 as CSV: ``fer2013.csv``, ``icml_face_data.csv``, and the competition's ``train.csv`` and ``test.csv``.

Columns are found by name, in any order, whatever their case and blanks, between commas, semicolons or tabs: ``pixels``,
``emotion`` or ``label``, and ``Usage`` (``fer_ray.sources.csv_lines`` describes their values). Tasks read ranges of
some MB, so a file may be of any size. A CSV inside a .zip or compressed by gzip is read by one task as a stream.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.images.image_files import is_regular
from fer_ray.sources.csv_lines import Layout, fields_of, read_line
from fer_ray.sources.image_trees import IMAGE_SUFFIXES, is_archive, is_ignored
from fer_ray.sources.name_options import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source, source_missing
from fer_ray.sources.split_names import SPLITS, read_splits, split_of_root
from fer_ray.sources.table_columns import (
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    find_label,
    require_labels,
    require_no_split_column,
)

UNPACKING_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""Exceptions of zipfile and gzip on files that are damaged, encrypted, or compressed by an unknown method."""

_TASK_BYTES = 8 << 20
_PROBE_BYTES = 1 << 20
_HEADER_BYTES = 4096
_LINE_BYTES = 64 << 20  # longer lines are cut there, so that a file without line ends doesn't fill the memory
_BUFFER_BYTES = 1 << 20  # a line of FER-2013 is longer than the default
_TABLE_ROWS = 2048
_TO_THE_END = -1
_OFFICIAL_NAMES = ("fer2013.csv", "icml_face_data.csv")
_NOT_CSV = IMAGE_SUFFIXES | {".parquet"}
_GZIP = b"\x1f\x8b"
_ID = "row-"
_LISTED_BYTES = 60  # of a line in a message
_BLANKS = b" \t\r\n"
csv.field_size_limit(sys.maxsize)  # the default refuses images larger than 180 × 180


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: plain, compressed by gzip, or a member of a .zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def name(self) -> str:
        return self.path.name if self.member is None else PurePosixPath(self.member).name

    def is_packed(self) -> bool:
        """Return whether its bytes can only be read from the start."""
        if self.member is not None:
            return True
        with self.path.open("rb") as file:
            return file.read(2) == _GZIP

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open its uncompressed bytes."""
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield member
        elif self.is_packed():
            with gzip.open(self.path) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            with self.path.open("rb", buffering=_BUFFER_BYTES) as file:
                yield file


def find_csv(path: Path) -> list[CsvFile]:
    """Return the files with a ``pixels`` column: the file itself, those directly in a folder, or the members of a .zip,
    whatever their names.

    Raises:
        DataError: a file that is named .csv can't be read.
    """
    return list(dict.fromkeys(file for file, start in _starts(path) if _header(start)))


def open_csv(path: Path, found: Sequence[CsvFile], options: NameOptions) -> Source:
    """Return CSV files as one source. Ids are ``row-0000001`` and so on, by data row; blank lines don't count.

    Of several files, ``fer2013.csv`` or ``icml_face_data.csv`` is read alone, else all files named after splits; a note
    names the others. ``Usage`` gives the split of each row; without it the file's name does, then the name of the
    folder or .zip. Otherwise rows with labels are for training and rows without for the test.

    Raises:
        DataError: these rules don't choose a file; or a file isn't a readable CSV, has no rows, no square image, or a
            column that may hold labels under another name; all at once.
    """
    files, splits = _choose(path, found, options)
    is_table = path == files[0].path and files[0].member is None
    root_split, root_notes = split_of_root(path, options.splits, is_table)
    layouts, problems = [], []
    for file in files:
        try:
            layouts.append(_layout(file, splits[file] or root_split))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    if any(file.is_packed() for file in files):
        # The rows of a stream can't be counted in advance, so one task numbers all of them.
        pieces = [{"file": number, "start": 0, "end": _TO_THE_END, "first": 1} for number in range(len(files))]
        manifest, total = [pa.Table.from_pylist(pieces)], None
    else:
        manifest, total = _manifest(files)
    notes = [] if all(splits[file] for file in files) else root_notes
    notes += [
        f"{file.name} has no column of labels: its rows are unlabelled."
        for file, layout in zip(files, layouts, strict=True)
        if not layout.label_column
    ]
    if unread := [_name_in(path, file) for file in found if file not in files]:
        read = ", ".join(_name_in(path, file) for file in files)
        notes.append(f"Read: {read}. Not read, though they hold images too: {', '.join(unread)}.")
    if path.is_dir() and (archives := sorted(file.name for file in path.iterdir() if is_archive(file.name))):
        notes.append(f"Not read: {', '.join(archives)}. Unpack what holds images.")
    has_usage = all(layout.split_column for layout in layouts)
    is_fer2013_form = has_usage and all(layout.label_column == "emotion" for layout in layouts)
    return Source(
        format="csv",
        name=str(path),
        manifest=manifest,
        read=functools.partial(_read, files, layouts),
        total=total,
        notes=notes,
        has_usage=has_usage,
        number_order="fer2013.csv" if is_fer2013_form else "assumed",
    )


def _choose(
    path: Path, found: Sequence[CsvFile], options: NameOptions
) -> tuple[list[CsvFile], Mapping[CsvFile, str | None]]:
    """Return the files to read, and by file the split that its name, or a folder's name in the .zip, means."""
    chains = {file: PurePosixPath(file.member or file.name).with_suffix("").parts for file in found}
    meaning = read_splits({name for chain in chains.values() for name in chain}, options.splits)
    splits = {
        file: next((meaning[name] for name in reversed(chain) if meaning[name]), None) for file, chain in chains.items()
    }
    for name in _OFFICIAL_NAMES:
        if len(official := [file for file in found if file.name.lower() == name]) == 1:
            return official, splits
    if len(found) == 1:
        return list(found), splits
    of_splits = [file for file in found if splits[file]]
    if len(of_splits) == len(found) or any(splits[file] == "train" for file in of_splits):
        return sorted(of_splits, key=lambda file: SPLITS.index(splits[file] or "")), splits
    names, unknown = ", ".join(_name_in(path, file) for file in found), next(file for file in found if not splits[file])
    raise DataError(
        f"{path}: holds several CSV files with a pixels column: {names}. Name their splits, such as --splits"
        f" '{chains[unknown][-1]}=train', or {'unpack it and ' if path.is_file() else ''}give one file as SOURCE."
    )


def _name_in(path: Path, file: CsvFile) -> str:
    """Return what names a file of a folder or .zip."""
    return str(file).removeprefix(f"{path}/")


def first_line(start: bytes) -> str:
    """Return the first line of a file's first bytes as a message shows it: quoted, shortened."""
    line = re.split(rb"[\r\n]", start, maxsplit=1)[0].removeprefix(codecs.BOM_UTF8)
    return repr(line[:_LISTED_BYTES].decode("utf-8", "replace") + "…" * (len(line) > _LISTED_BYTES))


def row_number(id: str) -> int:
    """Return the number of a data row, from 1, that its id was made of."""
    return int(id.removeprefix(_ID))


def _starts(path: Path) -> Iterator[tuple[CsvFile, bytes]]:
    """Yield what may be a CSV file, and its first bytes."""
    if path.is_file() and zipfile.is_zipfile(path):
        yield from _starts_in_zip(path)
        return
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        # A name that begins with a dot counts where it was asked for, and pipes never do: reading one would wait.
        if (file == path or not file.name.startswith(".")) and file.suffix.lower() not in _NOT_CSV and is_regular(file):
            found = CsvFile(file)
            yield _start(found, found.open)


def _starts_in_zip(path: Path) -> Iterator[tuple[CsvFile, bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (*UNPACKING_ERRORS, ValueError):
        return  # reading it as a tree of images says what is wrong
    with archive:
        for name in archive.namelist():
            is_file = not name.endswith("/") and not is_ignored(name)
            if is_file and PurePosixPath(name).suffix.lower() not in _NOT_CSV:
                yield _start(CsvFile(path, name), functools.partial(archive.open, name))


def _start(file: CsvFile, opener: Callable[[], AbstractContextManager[IO[bytes]]]) -> tuple[CsvFile, bytes]:
    try:
        with opener() as stream:
            return file, stream.read(_HEADER_BYTES)
    except UNPACKING_ERRORS as error:
        if file.name.lower().endswith(".csv"):
            raise DataError(f"{file}: can't be read: {error}.") from error
        return file, b""  # its name isn't that of a CSV


def _header(start: bytes) -> tuple[list[str], str] | None:
    """Return the names of the columns, in lower case, and the delimiter; None without a column ``pixels``."""
    encoding = "utf-8-sig" if b"\0" not in start else "utf-16-be" if start[:1] in (b"\0", b"\xfe") else "utf-16-le"
    line = re.split(r"[\r\n]", start.decode(encoding, "replace").lstrip("\ufeff"), maxsplit=1)[0]
    for delimiter in ",;\t":
        names = [
            name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        ]
        if "pixels" in names:
            return names, delimiter
    return None


def _layout(file: CsvFile, split: str | None) -> Layout:
    try:
        with file.open() as stream:
            start = stream.read(_HEADER_BYTES)
        names, delimiter = _checked_header(file, start)
        with file.open() as stream:
            stream.readline(_HEADER_BYTES)
            rows = _first_rows(stream, names, delimiter)
    except UNPACKING_ERRORS as error:
        raise DataError(f"{file}: can't be read: {error}.") from error
    counts = Counter(len(row[names.index("pixels")].split()) for row in rows)
    squares = {count: times for count, times in counts.items() if count and isqrt(count) ** 2 == count}
    if not squares:
        found = f"{next(iter(counts))} pixel values in the first row" if counts else "no data rows"
        raise DataError(f"{file}: {found}. Expected rows of {', '.join(names)}, with a square image such as 48 × 48.")
    side = isqrt(max(squares, key=lambda count: squares[count]))
    label = find_label(names, str(file))
    layout = Layout(tuple(names), delimiter, side, split or ("train" if label else "test"), label)
    if label is None:
        require_labels(names, "pixels", str(file), None if layout.split_column else split)
    if layout.split_column is None:
        unread = [at for at, name in enumerate(names) if name not in ("pixels", label)]
        require_no_split_column({names[at]: {row[at].strip() for row in rows} - {""} for at in unread}, str(file))
    return layout


def _checked_header(file: CsvFile, start: bytes) -> tuple[list[str], str]:
    header = _header(start)
    if header is None:
        raise DataError(
            f"{file}: no column is called pixels in its first line, {first_line(start)}. Rename the column of pixels."
        )
    if b"\0" in start:
        raise DataError(f"{file}: is UTF-16 text. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW.")
    if re.match(rb"[^\r\n]*\r(?!\n)", start):
        raise DataError(f"{file}: its lines end in CR alone, as on old Macs. Make that LF: tr '\\r' '\\n' < OLD > NEW.")
    doubled = [name for name in ("pixels", *LABEL_COLUMNS, *SPLIT_COLUMNS) if header[0].count(name) > 1]
    if doubled:
        raise DataError(f"{file}: several columns are called {' and '.join(doubled)}. Leave one of each in the file.")
    return header


def _first_rows(stream: IO[bytes], names: list[str], delimiter: str) -> list[list[str]]:
    """Return the fields of the rows at the start of a file that have as many as there are names."""
    rows = []
    for line in _lines(stream, _PROBE_BYTES):
        with contextlib.suppress(csv.Error):  # reading will reject the line with this reason
            if len(fields := fields_of(line, delimiter)) == len(names):
                rows.append(fields)
    return rows


def _lines(stream: IO[bytes], length: int) -> Iterator[str]:
    """Yield the data lines that begin in the next ``length`` bytes, or ``_TO_THE_END``, blank ones left out."""
    while length and (line := stream.readline(_LINE_BYTES)):
        length = max(length - len(line), 0) if length != _TO_THE_END else length
        if line.strip(_BLANKS):
            yield line.decode("latin-1").rstrip("\r\n")


def _manifest(files: Sequence[CsvFile]) -> tuple[list[pa.Table], int]:
    """Cut files into ranges of whole lines, a table each, and count the data rows."""
    manifest, rows = [], 0
    for number, file in enumerate(files):
        with file.open() as stream:
            stream.readline(_HEADER_BYTES)
            start = stream.tell()
            while chunk := stream.read(_TASK_BYTES) + stream.readline(_LINE_BYTES):
                piece = {"file": number, "start": start, "end": stream.tell(), "first": rows + 1}
                manifest.append(pa.Table.from_pylist([piece]))
                rows += _count_rows(chunk)
                start = stream.tell()
    return manifest, rows


def _count_rows(chunk: bytes) -> int:
    lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
    characters = np.frombuffer(chunk, np.uint8)
    starts = np.flatnonzero(characters[:-1] == ord("\n")) + 1
    may_be_blank = not chunk[:1].strip(_BLANKS) or np.isin(characters[starts], list(_BLANKS)).any()
    return sum(1 for line in chunk.split(b"\n") if line.strip(_BLANKS)) if may_be_blank else lines


def _read(files: list[CsvFile], layouts: list[Layout], pieces: pa.Table, size: int) -> Iterator[pa.Table]:
    number = pieces["first"][0].as_py()
    for piece in pieces.to_pylist():
        file, layout = files[piece["file"]], layouts[piece["file"]]
        if not file.path.exists():
            yield source_missing(str(file.path), size)
            return
        rows = RowBuilder(size)
        try:
            with file.open() as stream:
                if piece["start"]:
                    stream.seek(piece["start"])
                else:
                    stream.readline(_HEADER_BYTES)
                for line in _lines(stream, piece["end"] - piece["start"]):
                    read_line(line, f"{_ID}{number:07}", str(file), layout, rows)
                    number += 1
                    if len(rows) == _TABLE_ROWS:
                        yield rows.table()
                        rows = RowBuilder(size)
        except UNPACKING_ERRORS as error:
            rows.reject(f"{_ID}{number:07}", str(file), f"from here on the file can't be unpacked: {error}")
            number += 1
        yield rows.table()
