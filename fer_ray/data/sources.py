"""Recognise where images come from, by content, and open it as a ``Source`` that is read a piece at a time."""

import functools
import zipfile
from pathlib import Path

import pyarrow as pa

from fer_ray.data.csv_files import find_csv, open_csv
from fer_ray.data.image_trees import open_folder, open_zip
from fer_ray.data.images import resize
from fer_ray.data.rows import RowBuilder, Source
from fer_ray.data.synthetic import SIZE as SYNTHETIC_SIZE
from fer_ray.data.synthetic import synthetic_faces
from fer_ray.errors import DataError, UsageError
from fer_ray.files import local_path

FORMATS = ("auto", "folder", "zip", "csv", "synthetic")
_SYNTHETIC_COUNT = 4000
_SYNTHETIC_TASK = 250
_EXPECTED = (
    "Expected a folder or a .zip with SPLIT/LABEL/image or LABEL/image files, a CSV file with emotion and pixels"
    " columns such as fer2013.csv, or `synthetic`."
)


def open_source(source: Path | str, format: str = "auto", seed: int = 0) -> Source:
    """Recognise a source and list what it holds.

    Args:
        source: a local path, or ``synthetic`` or ``synthetic:N`` for N drawn faces.
        format: one of ``FORMATS``; ``auto`` decides by content.
        seed: of the drawn faces.

    Raises:
        UsageError: no such format, or a number of faces that is none.
        DataError: the source is missing, empty, unreadable or of no known format.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format}: must be one of {', '.join(FORMATS)}.")
    if format == "synthetic" or (format == "auto" and str(source).partition(":")[0] == "synthetic"):
        return _synthetic(str(source), seed)
    path = local_path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. {_EXPECTED}")
    kind = _recognise(path) if format == "auto" else format
    if kind == "csv":
        return open_csv(_require_csv(path))
    if kind == "folder":
        if not path.is_dir():
            raise DataError(f"{path}: is a file; --format folder needs a folder.")
        return open_folder(path)
    if not path.is_file():
        raise DataError(f"{path}: is a folder; --format zip needs a .zip file.")
    return open_zip(path)


def _recognise(path: Path) -> str:
    if find_csv(path):
        return "csv"
    if path.is_dir():
        return "folder"
    if zipfile.is_zipfile(path):
        return "zip"
    with path.open("rb") as file:
        start = file.read(24)
    found = f"a file that starts with {start!r}" if start else "an empty file"
    if path.suffix.lower() == ".zip":
        found += ", which is no readable .zip"
    raise DataError(f"{path}: {found}. {_EXPECTED}")


def _require_csv(path: Path) -> list[Path]:
    files = find_csv(path)
    if not files:
        raise DataError(f"{path}: no CSV file with a pixels column, which --format csv needs.")
    return files


def _synthetic(text: str, seed: int) -> Source:
    name, colon, number = text.partition(":")
    if name != "synthetic":
        raise UsageError(f"{text}: --format synthetic needs `synthetic` or `synthetic:N` as the source.")
    if colon and not (number.isascii() and number.isdigit() and 1 <= int(number) <= 10_000_000):
        raise UsageError(f"{text}: after `synthetic:` a number of faces is needed, 1 to 10,000,000.")
    count = int(number) if colon else _SYNTHETIC_COUNT
    starts = range(0, count, _SYNTHETIC_TASK)
    return Source(
        format="synthetic",
        name=f"synthetic:{count} with seed {seed}",
        manifest=[pa.table({"start": [at], "count": [min(_SYNTHETIC_TASK, count - at)]}) for at in starts],
        read=functools.partial(_draw, seed),
        total=count,
        notes=["Drawn faces: figures on them say nothing about real ones."],
    )


def _draw(seed: int, pieces: pa.Table, size: int) -> pa.Table:
    """Draw faces; of every ten, eight are for training, one for validation and one for the test."""
    rows = RowBuilder(size)
    for piece in pieces.to_pylist():
        images, labels = synthetic_faces(piece["count"], seed, piece["start"])
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True), start=piece["start"]):
            split = {8: "validation", 9: "test"}.get(number % 10, "train")
            id = f"face-{number:07}"
            rows.add(id, id, split, label, resize(image, size), SYNTHETIC_SIZE, SYNTHETIC_SIZE)
    return rows.table()
