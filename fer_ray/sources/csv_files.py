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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path, PurePosixPath
from typing import IO, cast

import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.images.image_files import is_regular
from fer_ray.sources.csv_rows import (
    ID,
    LINE_BYTES,
    UNPACKING_ERRORS,
    CsvLayout,
    cell_text,
    parse_rows,
    read_batches,
    split_fields,
)
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

_TASK_BYTES = 8 << 20
_PROBE_BYTES = 1 << 20
_HEADER_BYTES = 4096
_BUFFER_BYTES = 1 << 20  # a line of FER-2013 is longer than the default
_TO_THE_END = sys.maxsize
_OFFICIAL_NAMES = ("fer2013.csv", "icml_face_data.csv")
_NOT_CSV = IMAGE_SUFFIXES | {".parquet"}
_GZIP = b"\x1f\x8b"
_LISTED_BYTES = 60  # of a line in a message


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
        with self.open() as stream:
            return not isinstance(stream, io.BufferedReader)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open its uncompressed bytes."""
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield member
        else:
            with cast(io.BufferedReader, self.path.open("rb", _BUFFER_BYTES)) as file:
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if file.peek(2)[:2] == _GZIP else file


def find_csv(path: Path) -> list[CsvFile]:
    """Return the files with a ``pixels`` column: the file itself, those directly in a folder, or the members of a .zip,
    whatever their names.

    Raises:
        DataError: a file that is named .csv can't be read.
    """
    found = []
    with contextlib.ExitStack() as stack:
        for file, opener in _candidates(path, stack):
            try:
                with opener() as stream:
                    if _header(stream.read(_HEADER_BYTES)):
                        found.append(file)
            except UNPACKING_ERRORS as error:
                if file.name.lower().endswith(".csv"):
                    raise DataError(f"{file}: can't be read: {error}.") from error
    return found


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
        ranges = [{"file": number, "start": 0, "end": _TO_THE_END, "first": 1} for number in range(len(files))]
        manifest, total = [pa.Table.from_pylist(ranges)], None
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
    return int(id.removeprefix(ID))


def _candidates(
    path: Path, stack: contextlib.ExitStack
) -> Iterator[tuple[CsvFile, Callable[[], AbstractContextManager[IO[bytes]]]]]:
    """Yield what may be a CSV file, with a function that opens it."""
    if path.is_file() and zipfile.is_zipfile(path):
        with contextlib.suppress(*UNPACKING_ERRORS, ValueError):  # reading it as a tree of images reports the damage
            archive = stack.enter_context(zipfile.ZipFile(path))
            for name in dict.fromkeys(archive.namelist()):
                if not (name.endswith("/") or is_ignored(name) or PurePosixPath(name).suffix.lower() in _NOT_CSV):
                    yield CsvFile(path, name), functools.partial(archive.open, name)
        return
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        # A hidden file counts if it is the source itself. Reading a pipe would wait for its writer.
        if (file == path or not file.name.startswith(".")) and file.suffix.lower() not in _NOT_CSV and is_regular(file):
            yield CsvFile(file), CsvFile(file).open


def _header(start: bytes) -> tuple[list[str], str] | None:
    """Return the names of the columns, in lower case, and the delimiter; None without a column ``pixels``."""
    encoding = "utf-8-sig" if b"\0" not in start else "utf-16-be" if start[:1] in (b"\0", b"\xfe") else "utf-16-le"
    line = re.split(r"[\r\n]", start.decode(encoding, "replace").lstrip("\ufeff"), maxsplit=1)[0]
    for delimiter in ",;\t":
        names = [name.strip(' \t"').lower() for name in line.split(delimiter)]
        if "pixels" in names:
            return names, delimiter
    return None


def _layout(file: CsvFile, split: str | None) -> CsvLayout:
    try:
        with file.open() as stream:
            start = stream.read(_HEADER_BYTES)
        names, delimiter = _checked_header(file, start)
        with file.open() as stream:
            stream.readline(_HEADER_BYTES)
            lines = [line for lines in read_batches(stream, _PROBE_BYTES) for line in lines]
    except UNPACKING_ERRORS as error:
        raise DataError(f"{file}: can't be read: {error}.") from error
    columns, _ = split_fields(lines, names, delimiter)
    counts = Counter(len(cell.split()) for cell in columns["pixels"])
    squares = {count: times for count, times in counts.items() if count and isqrt(count) ** 2 == count}
    if not squares:
        found = f"{next(iter(counts))} pixel values in the first row" if counts else "no data rows"
        raise DataError(f"{file}: {found}. Expected rows of {', '.join(names)}, with a square image such as 48 × 48.")
    side = isqrt(max(squares, key=lambda count: squares[count]))
    label = find_label(names, str(file))
    split_column = next((name for name in SPLIT_COLUMNS if name in names), None)
    if label is None:
        require_labels(names, "pixels", str(file), None if split_column else split)
    if split_column is None:
        unread = [name for name in names if name not in ("pixels", label)]
        require_no_split_column({name: set(map(cell_text, columns[name])) - {""} for name in unread}, str(file))
    return CsvLayout(tuple(names), delimiter, side, split or ("train" if label else "test"), label, split_column)


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


def _manifest(files: Sequence[CsvFile]) -> tuple[list[pa.Table], int]:
    """Cut files into ranges of whole lines, a table each, and count the data rows."""
    manifest, rows = [], 0
    for number, file in enumerate(files):
        with file.open() as stream:
            stream.readline(_HEADER_BYTES)
            start = stream.tell()
            while chunk := stream.read(_TASK_BYTES) + stream.readline(LINE_BYTES):
                one = {"file": number, "start": start, "end": stream.tell(), "first": rows + 1}
                manifest.append(pa.Table.from_pylist([one]))
                rows += sum(1 for line in chunk.split(b"\n") if line and not line.isspace())
                start = stream.tell()
    return manifest, rows


def _read(files: list[CsvFile], layouts: list[CsvLayout], ranges: pa.Table, size: int) -> Iterator[pa.Table]:
    number = ranges["first"][0].as_py()
    for one in ranges.to_pylist():
        file, layout = files[one["file"]], layouts[one["file"]]
        if not file.path.exists():
            yield source_missing(str(file.path), size)
            return
        try:
            with file.open() as stream:
                if one["start"]:
                    stream.seek(one["start"])
                else:
                    stream.readline(_HEADER_BYTES)
                for lines in read_batches(stream, one["end"] - one["start"]):
                    yield parse_rows(lines, number, str(file), layout, size)
                    number += len(lines)
        except UNPACKING_ERRORS as error:
            rows = RowBuilder(size)
            rows.reject(f"{ID}{number:07}", str(file), f"from here on the file can't be unpacked: {error}")
            number += 1
            yield rows.table()
