"""A line of FER-2013 as CSV, to a row.

``pixels`` holds whole numbers 0 to 255 between blanks, rows of the image first; ``emotion`` a number, a name, or
nothing where the row is unlabelled; ``Usage`` the split. ``fer_ray.sources.label_names`` gives their meaning.
"""

import csv
import re
from dataclasses import dataclass

import numpy as np

from fer_ray.images.decode import resize
from fer_ray.sources.raw_rows import RowBuilder
from fer_ray.sources.table_columns import SPLIT_COLUMNS

_NAME = 40  # characters to look at, as a whole field of pixels takes longer
_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Layout:
    """Where the columns of a file are, and what its rows are to be.

    Attributes:
        names: of all columns, in lower case.
        delimiter: between them.
        side: of the square images, in pixels.
        split: of the rows of a file without a column of splits.
        label_column: name of the column of labels, or None.
    """

    names: tuple[str, ...]
    delimiter: str
    side: int
    split: str
    label_column: str | None

    @property
    def split_column(self) -> str | None:
        return next((name for name in SPLIT_COLUMNS if name in self.names), None)


def fields_of(line: str, delimiter: str) -> list[str]:
    """Split a line at its delimiters.

    Raises:
        csv.Error: a quotation mark without its counterpart, or text behind one.
    """
    if '"' not in line:
        return line.split(delimiter)  # ten times as fast
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))


def read_line(line: str, id: str, path: str, layout: Layout, rows: RowBuilder) -> None:
    """Add a line as a row, or as a rejected one with the reason."""
    try:
        fields = fields_of(line, layout.delimiter)
        if len(fields) != len(layout.names):
            raise ValueError(f"{len(fields)} column(s), {len(layout.names)} expected")
        if fields[0][:_NAME].strip().lower() == layout.names[0] and _is_header(fields, layout):
            raise ValueError("the header line again, inside the file")
        of = dict(zip(layout.names, fields, strict=True))
        split = of[layout.split_column].strip() if layout.split_column else layout.split
        label = of[layout.label_column] if layout.label_column else None
        pixels = _pixels(of["pixels"], layout.side)
    except (ValueError, csv.Error) as error:
        rows.reject(id, path, str(error))
    else:
        rows.add(id, path, split, label, resize(pixels, rows.size), layout.side, layout.side)


def _is_header(fields: list[str], layout: Layout) -> bool:
    return [field.strip().lower() for field in fields] == list(layout.names)


def _pixels(text: str, side: int) -> np.ndarray:
    # numpy takes a lone minus for 0, and by its version stops without an error at what is no number; so look first.
    if text.encode("latin-1", "replace").translate(None, b"0123456789 \t"):
        wrong = [word for word in text.split() if not _NUMBER.fullmatch(word)]
        if wrong:
            raise ValueError(f"a pixel value is {wrong[0][:20]!r}, expected whole numbers 0 to 255 between blanks")
    values = np.fromstring(text, np.int64, sep=" ")
    if len(values) != side * side:
        raise ValueError(f"{len(values)} pixel values, {side * side} expected ({side} × {side})")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"pixel values from {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(side, side)
