"""Lines of a CSV to raw rows."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv

from fer_ray.images.decode import resize
from fer_ray.sources.raw_rows import RowBuilder

UNPACKING_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""Exceptions of zipfile and gzip on files that are damaged, encrypted, or compressed by an unknown method."""

LINE_BYTES = 64 << 20
"""A longer line is cut, so that a file without line ends doesn't fill the memory."""

ID = "row-"
"""The start of a row's id, before its number in the source."""

_BATCH_ROWS = 2048


@dataclass(frozen=True)
class CsvLayout:
    """The columns of a file, and what all its rows have in common.

    Attributes:
        names: of all columns, in lower case.
        delimiter: between them.
        side: of the square images, in pixels.
        split: of all rows, in a file without a column of splits.
        label_column: name of the column of labels, or None.
        split_column: name of the column of splits, or None.
    """

    names: tuple[str, ...]
    delimiter: str
    side: int
    split: str
    label_column: str | None
    split_column: str | None


def read_batches(stream: IO[bytes], length: int) -> Iterator[list[bytes]]:
    """Yield the lines that begin in the next ``length`` bytes, without blank ones, up to ``_BATCH_ROWS`` at once."""
    lines = list[bytes]()
    try:
        while length > 0 and (line := stream.readline(LINE_BYTES)):
            length -= len(line)
            if not line.isspace():
                lines.append(line.rstrip(b"\r\n"))
            if len(lines) == _BATCH_ROWS:
                yield lines
                lines = []
    except UNPACKING_ERRORS:
        yield lines
        raise
    if lines:
        yield lines


def split_fields(
    lines: list[bytes], names: Sequence[str], delimiter: str
) -> tuple[dict[str, list[bytes]], dict[int, str]]:
    """Return the columns of the valid lines, and by position the reasons why other lines are invalid."""
    columns, invalid = _parse(lines, len(names), delimiter, '"')
    if lines and len(columns[0]) + len(invalid) != len(lines):  # an open quotation mark has swallowed the next lines
        columns, invalid = _parse(lines, len(names), delimiter, False)
    return dict(zip(names, columns, strict=True)), invalid


def _parse(
    lines: list[bytes], count: int, delimiter: str, quote: str | bool
) -> tuple[list[list[bytes]], dict[int, str]]:
    invalid = dict[int, str]()

    def reject(row: csv.InvalidRow) -> str:
        invalid[row.number - 1] = f"{row.actual_columns} column(s), {row.expected_columns} expected"
        return "skip"

    text = b"\n".join(lines).replace(b"\r", b" ")
    if not text.isascii():  # an invalid row has to be UTF-8, or its handler isn't called
        text = text.decode("utf-8", "replace").encode()
    if not text:
        return [[] for _ in range(count)], invalid
    names = [str(number) for number in range(count)]  # the file's own may not be unique
    table = csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(use_threads=False, column_names=names, block_size=len(text) + 1),
        csv.ParseOptions(delimiter=delimiter, quote_char=quote, invalid_row_handler=reject),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False),
    )
    return [table[name].to_pylist() for name in names], invalid


def cell_text(cell: bytes) -> str:
    return _unquoted(cell).decode("utf-8", "backslashreplace")


def _unquoted(cell: bytes) -> bytes:
    """Return a cell without blanks and quotation marks around it."""
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[:1] == cell[-1:] == b'"' else cell


def parse_rows(lines: list[bytes], first: int, file: str, layout: CsvLayout, size: int) -> pa.Table:
    columns, invalid = split_fields(lines, layout.names, layout.delimiter)
    valid = zip(*columns.values(), strict=True)
    rows = RowBuilder(size)
    for position in range(len(lines)):
        id = f"{ID}{first + position:07}"
        try:
            if position in invalid:
                raise ValueError(invalid[position])
            of = dict(zip(columns, next(valid), strict=True))
            split = cell_text(of[layout.split_column]) if layout.split_column else layout.split
            label = cell_text(of[layout.label_column]) if layout.label_column else None
            pixels = _pixels(_unquoted(of["pixels"]), layout.side)
        except ValueError as error:
            rows.reject(id, file, str(error))
        else:
            rows.add(id, file, split, label, resize(pixels, size), layout.side, layout.side)
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
