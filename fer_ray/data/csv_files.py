"""FER-2013 as CSV: ``fer2013.csv``, ``icml_face_data.csv``, and the competition's ``train.csv`` and ``test.csv``.

Columns are found by name, in any order, blanks and case aside: ``pixels`` (numbers 0 to 255 between blanks, rows of
the image first), ``emotion`` (0 to 6 in csv order, or a name) and ``Usage`` (the split). Files are read in ranges of
some MB, so that their size doesn't matter.
"""

import csv
import functools
import sys
from collections import Counter
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import pyarrow as pa

from fer_ray.data.image_trees import SPLIT_NAMES
from fer_ray.data.images import resize
from fer_ray.data.rows import RowBuilder, Source, source_missing
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, label_of
from fer_ray.errors import DataError

_TASK_BYTES = 8 << 20
_PROBE_BYTES = 1 << 20
_FOLDER_FILES = (("fer2013.csv",), ("icml_face_data.csv",), ("train.csv", "test.csv"), ("train.csv",))
csv.field_size_limit(sys.maxsize)  # the default refuses images larger than 180 × 180


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a file are, and what its rows are to be."""

    columns: int
    pixels: int
    emotion: int | None
    usage: int | None
    side: int  # of the images
    split: str  # of the rows of a file without Usage


def is_csv(path: Path) -> bool:
    """Say whether a file starts with a CSV header that has a ``pixels`` column."""
    return path.is_file() and "pixels" in _header(path)


def find_csv(path: Path) -> list[Path]:
    """Return the CSV files to read for a path: the file itself, or those in a folder under their known names."""
    if path.is_file():
        return [path] if is_csv(path) else []
    for names in _FOLDER_FILES:
        files = [path / name for name in names]
        if all(is_csv(file) for file in files):
            return files
    return []


def open_csv(files: list[Path]) -> Source:
    """Return CSV files as one source. Ids are ``row-0000001`` and so on, by line after the header.

    Rows of a file without ``Usage`` are for training; those without ``emotion`` are unlabelled and for the test.

    Raises:
        DataError: a file has no rows, or none with pixels that make a square.
    """
    layouts = {str(file): _layout(file) for file in files}
    manifest, lines = [], 0
    for file in files:
        for start, end, count in _ranges(file):
            piece = {"file": [str(file)], "start": [start], "end": [end], "first": [lines + 1]}
            manifest.append(pa.table(piece))
            lines += count
    missing = [file.name for file in files if layouts[str(file)].emotion is None]
    return Source(
        format="csv",
        name=", ".join(map(str, files)),
        manifest=manifest,
        read=functools.partial(_read, layouts),
        total=lines,
        notes=[f"{name} has no emotion column: its rows are unlabelled." for name in missing],
    )


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(1000)
    return [name.strip().lower() for name in line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(",")]


def _layout(path: Path) -> _Layout:
    names = _header(path)
    column = {name: number for number, name in enumerate(names)}
    with path.open("rb") as file:
        file.readline()
        probe = file.readlines(_PROBE_BYTES)
    counts = Counter(
        len(row[column["pixels"]].split())
        for row in csv.reader(line.decode("latin-1") for line in probe)
        if len(row) == len(names)
    )
    squares = {count: times for count, times in counts.items() if count and isqrt(count) ** 2 == count}
    if not squares:
        found = f"{next(iter(counts))} pixel values in the first row" if counts else "no data rows"
        raise DataError(f"{path}: {found}. Expected rows of {', '.join(names)}, with a square image such as 48 × 48.")
    return _Layout(
        columns=len(names),
        pixels=column["pixels"],
        emotion=column.get("emotion"),
        usage=column.get("usage"),
        side=isqrt(max(squares, key=lambda count: squares[count])),
        split="train" if "emotion" in column else "test",
    )


def _ranges(path: Path) -> list[tuple[int, int, int]]:
    """Cut the data lines into ranges: first byte, end, and the number of lines."""
    ranges = []
    with path.open("rb") as file:
        file.readline()
        start = file.tell()
        while chunk := file.read(_TASK_BYTES):
            rest = file.readline()
            lines = chunk.count(b"\n") + rest.count(b"\n") + (not (chunk + rest[-1:]).endswith(b"\n"))
            ranges.append((start, file.tell(), lines))
            start = file.tell()
    return ranges


def _read(layouts: dict[str, _Layout], pieces: pa.Table, size: int) -> pa.Table:
    rows = RowBuilder(size)
    for piece in pieces.to_pylist():
        path = Path(piece["file"])
        if not path.exists():
            return source_missing(str(path), size)
        with path.open("rb") as file:
            file.seek(piece["start"])
            text = file.read(piece["end"] - piece["start"]).decode("latin-1")
        for number, line in enumerate(text.splitlines(), start=piece["first"]):
            if line.strip():
                _read_line(line, f"row-{number:07}", path, layouts[piece["file"]], rows)
    return rows.table()


def _read_line(line: str, id: str, path: Path, layout: _Layout, rows: RowBuilder) -> None:
    try:
        fields = next(csv.reader([line]))
        if len(fields) != layout.columns:
            raise ValueError(f"{len(fields)} column(s), {layout.columns} expected")
        split = layout.split if layout.usage is None else _split(fields[layout.usage])
        label = None if layout.emotion is None else _label(fields[layout.emotion])
        pixels = _pixels(fields[layout.pixels], layout.side)
    except (ValueError, csv.Error) as error:
        rows.reject(id, str(path), str(error))
    else:
        rows.add(id, str(path), split, label, resize(pixels, rows.size), layout.side, layout.side)


def _split(text: str) -> str:
    split = SPLIT_NAMES.get(text.strip().lower())
    if split is None:
        raise ValueError(f"Usage '{text.strip()}', expected Training, PublicTest or PrivateTest")
    return split


def _label(text: str) -> int:
    text = text.strip()
    label = int(text) if text.isascii() and text.isdigit() else label_of(text)
    if label is None or not 0 <= label < NUM_CLASSES:
        raise ValueError(f"emotion '{text}', expected 0 to {NUM_CLASSES - 1} or one of {', '.join(EMOTIONS)}")
    return label


def _pixels(text: str, side: int) -> np.ndarray:
    try:
        values = np.fromstring(text, np.int32, sep=" ")
    except ValueError:
        raise ValueError("the pixels hold something that is no whole number") from None
    if len(values) != side * side:
        raise ValueError(f"{len(values)} pixel values, {side * side} expected ({side} × {side})")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"pixel values from {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(side, side)
