"""Recognise a source of images by its content, and open it as a ``Source`` that is read in parts."""

import functools
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.images.decode import resize
from fer_ray.images.image_files import path_text
from fer_ray.sources.csv_files import CsvFile, find_csv, first_line, open_csv
from fer_ray.sources.image_trees import Tree, list_tree, open_tree
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.parquet_files import find_parquet, open_parquet
from fer_ray.sources.raw_rows import SOURCE_MISSING, RowBuilder, Source
from fer_ray.sources.synthetic import SIZE as SYNTHETIC_SIZE
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.object_store import as_url

_Read = Callable[[pa.Table, int], Iterator[pa.Table]]
_START_BYTES = 256
_SYNTHETIC_COUNT = 4000
_SYNTHETIC_TASK = 250
_EXPECTED = (
    "Expected a folder or a .zip with SPLIT/LABEL/image or LABEL/image files, a CSV file with emotion and pixels"
    " columns such as fer2013.csv, Parquet with image and label columns, or `synthetic`."
)
_ARCHIVES = {
    b"PK": "an unreadable .zip: its end is missing or damaged. Copy or download it again",
    b"\x1f\x8b": "compressed by gzip, and no CSV file inside. Unpack it first, a .tar.gz by `tar xzf`",
    b"7z\xbc\xaf": "a 7-Zip archive. Unpack it first",
    b"Rar!": "a RAR archive. Unpack it first",
}


def open_source(source: Path | str, format: str = "auto", seed: int = 0, options: NameOptions | None = None) -> Source:
    """Recognise a source and list its contents.

    Args:
        source: a path or URL; or ``synthetic``, or ``synthetic:N`` for N drawn faces.
        format: ``folder``, ``zip``, ``csv``, ``parquet`` or ``synthetic``; ``auto`` decides by content.
        seed: of the drawn faces.
        options: what the user says about names.

    Raises:
        UsageError: an unknown format, or a wrong number of faces.
        DataError: the source is missing, empty, unreadable, in no known format or in several; or the splits or labels
            are unclear.
    """
    if format == "synthetic" or (format == "auto" and str(source).partition(":")[0] == "synthetic"):
        return _synthetic(str(source), seed)
    url, path = as_url(source), local_copy(source)
    if url and not path.exists():
        raise DataError(f"{url}: no such file or folder. {_EXPECTED}")
    opened = _recognise(path, format, options or NameOptions())
    name = url.rstrip("/") + opened.name.removeprefix(str(path)) if url else opened.name
    return replace(opened, name=name, read=functools.partial(_read_here, url or path, opened.read))


def _read_here(source: Path | str, read: _Read, parts: pa.Table, size: int) -> Iterator[pa.Table]:
    path = _fetched(source)
    if path.exists():
        yield from read(parts, size)
    else:
        rows = RowBuilder(size)
        rows.reject(str(path), str(path), SOURCE_MISSING)
        yield rows.table()


_fetched = functools.cache(local_copy)  # a process reads many parts of a source


def _recognise(path: Path, format: str, options: NameOptions) -> Source:
    _require_source(path)
    is_tree = path.is_dir() or zipfile.is_zipfile(path)
    tree = list_tree(path) if is_tree and (format != "csv" or path.is_file()) else None
    csv_files = find_csv(path) if format in ("auto", "csv") else []
    parquet_files = list[bytes]()
    if format in ("auto", "parquet") and not (tree and tree.format == "zip"):
        parquet_files = find_parquet([file["file"] for file in tree.files] if tree else [os.fsencode(path)])
    if format == "auto":
        _require_one_format(path, csv_files, parquet_files, tree)
    if csv_files:
        return open_csv(path, csv_files, options)
    if parquet_files:
        return open_parquet(path, parquet_files, options)
    if tree and format in ("auto", tree.format):
        return open_tree(tree, options)
    if format != "auto":
        raise DataError(f"{path}: holds no {format} as --format says. Leave --format out. {_EXPECTED}")
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    archive = next((kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)), None)
    what = archive or (f"a file whose first line is {first_line(start)}" if start else "an empty file")
    raise DataError(f"{path}: {what}. {_EXPECTED}")


def _require_one_format(path: Path, csv_files: list[CsvFile], parquet_files: list[bytes], tree: Tree | None) -> None:
    csv, parquet = ", ".join(map(str, csv_files)), ", ".join(map(path_text, parquet_files[:3]))
    kinds = {"csv": f"CSV files with a pixels column ({csv})"} if csv else {}
    kinds |= {"parquet": f"Parquet files ({parquet})"} if parquet else {}
    if kinds and tree and (images := tree.count_images()):
        kinds[tree.format] = f"{images:,} images in folders named after emotions"
    if len(kinds) > 1:
        formats = " or ".join(f"--format {name}" for name in kinds)
        raise DataError(f"{path}: holds {' and '.join(kinds.values())}. Choose one: {formats}.")


def _require_source(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{path}: neither a file nor a folder (mode {stat.filemode(mode)}). {_EXPECTED}")
        with os.scandir(path) if stat.S_ISDIR(mode) else path.open("rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder. {_EXPECTED}") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}. Correct its permissions or link.") from error


def _synthetic(text: str, seed: int) -> Source:
    match = re.fullmatch(r"synthetic(?::([0-9]{1,8}))?", text)
    count = int(match[1] or _SYNTHETIC_COUNT) if match else 0
    if not 1 <= count <= 10_000_000:
        raise UsageError(f"{text}: expected `synthetic`, or `synthetic:N` with a number of faces from 1 to 10,000,000.")
    starts = range(0, count, _SYNTHETIC_TASK)
    return Source(
        format="synthetic",
        name=f"synthetic:{count} with seed {seed}",
        manifest=[pa.table({"start": [at], "count": [min(_SYNTHETIC_TASK, count - at)]}) for at in starts],
        read=functools.partial(_draw, seed),
        total=count,
        notes=["Drawn faces: figures on them say nothing about real ones."],
    )


def _draw(seed: int, parts: pa.Table, size: int) -> Iterator[pa.Table]:
    """Draw faces: of every ten, eight for training, one for validation and one for the test."""
    rows = RowBuilder(size)
    for part in parts.to_pylist():
        images, labels = synthetic_faces(part["count"], seed, part["start"])
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True), start=part["start"]):
            split = {8: "validation", 9: "test"}.get(number % 10, "train")
            id = f"face-{number:07}"
            rows.add(id, id, split, EMOTIONS[label], resize(image, size), SYNTHETIC_SIZE, SYNTHETIC_SIZE)
    yield rows.table()
