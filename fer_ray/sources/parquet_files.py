"""Parquet as model hubs keep images: a file, or a folder of files such as ``data/train-00000-of-00002.parquet``.

Columns are found by name, whatever its case (``fer_ray.sources.table_columns``). ``image`` holds an image file's bytes,
or a struct with them in ``bytes``. ``label`` holds a number or a name; without the column, or where it is null, a row
is unlabelled. A number is an index into the names that the library `datasets` writes into the schema's metadata, or has
the meaning of ``fer_ray.sources.label_names``. ``split`` gives the split of each row; without it the names of the file
and its folders do (``fer_ray.sources.split_names``). Tasks read ranges of row groups, so a file may be of any size.
"""

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.errors import DataError, Problems
from fer_ray.images.decode import ImageError, decode
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import is_regular, path_text
from fer_ray.sources.image_trees import IMAGE_SUFFIXES
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source
from fer_ray.sources.table_columns import (
    IMAGE_COLUMNS,
    TableLayout,
    find_column,
    find_columns,
    holds_bytes,
    is_text,
    set_splits,
)

_MAGIC = b"PAR1"
_SHARD = re.compile(r"([-_.]\d{4,}-of-\d{4,}.*|(?<=^part)[-_.]?\d+.*|[-_.]?\d+)$")  # numbers the files of a split
_TASK_ROWS = 2048  # a task reads row groups up to this many rows
_BATCH_ROWS = 256  # in memory at once, as images may be large files
_ERRORS = (OSError, pa.ArrowException)


@dataclass
class _Layout(TableLayout):
    """The columns of a file, and what all its rows have in common."""

    file: bytes
    path: str  # relative to the source
    image: str
    names: tuple[str, ...] | None  # of labels by number


def find_parquet(listed: Iterable[bytes]) -> list[bytes]:
    """Return the Parquet files among some files, by content."""
    no_parquet = tuple(os.fsencode(suffix) for suffix in IMAGE_SUFFIXES)
    files = (file for file in listed if not file.lower().endswith(no_parquet))
    return [file for file in files if is_regular(Path(os.fsdecode(file))) and _starts_as_parquet(file)]


def _starts_as_parquet(file: bytes) -> bool:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - bytes, for names that are not UTF-8
            return opened.read(4) == _MAGIC
    except OSError as error:
        if file.lower().endswith(b".parquet"):
            raise DataError(f"{path_text(file)}: can't be read: {error.strerror}.") from error
        return False  # its name isn't that of a Parquet file


def open_parquet(path: Path, files: list[bytes], options: NameOptions) -> Source:
    """Return Parquet files as one source. Ids are a file's path below the source and the row's number from 1.

    Raises:
        DataError: a file is damaged, has no rows or no column of images, or labels of a wrong type, all at once; or the
            splits are unclear.
    """
    layouts, manifest, problems, total = list[_Layout](), list[pa.Table](), Problems(), 0
    for number, file in enumerate(files):
        with problems.collect():
            try:
                with pq.ParquetFile(os.fsdecode(file)) as opened:
                    total += opened.metadata.num_rows
                    manifest += _ranges(number, opened.metadata)
                    layouts.append(_layout(path, file, opened))
            except _ERRORS as error:
                why = str(error).rstrip(".")
                raise DataError(
                    f"{path_text(file)}: not readable as Parquet: {why}. Copy or download it again."
                ) from error
    problems.stop()
    if not total:
        raise DataError(f"{path}: its Parquet files have no rows. Expected rows with an image and a label.")
    notes = set_splits(path, layouts, options, path.is_file())
    _set_names(layouts, str(path))
    return Source(
        format="parquet",
        name=path_text(os.fsencode(path)),
        manifest=manifest,
        read=functools.partial(_read, layouts),
        total=total,
        notes=notes,
        has_usage=all(layout.split_column for layout in layouts),
    )


def _layout(root: Path, file: bytes, opened: pq.ParquetFile) -> _Layout:
    schema, name = opened.schema_arrow, path_text(file)
    image = find_column(schema, IMAGE_COLUMNS)
    if image is None:
        raise DataError(
            f"{name}: none of its columns {', '.join(schema.names)} is called {', '.join(IMAGE_COLUMNS)}. Rename the"
            " column of the image files' bytes."
        )

    def read_texts(columns: list[str]) -> dict[str, set[str]]:
        texts = [column for column in columns if is_text(schema.field(column).type)]
        table = opened.read_row_group(0, columns=texts) if texts and opened.num_row_groups else pa.table({})
        found = {text: set(map(str, table[text].drop_null().unique().to_pylist())) for text in table.column_names}
        return {column: found.get(column, set()) for column in columns}

    label, split_column = find_columns(schema.names, image, name, read_texts)
    checks = [
        (image, holds_bytes, "bytes or a struct of them, the content of an image file"),
        (label, _is_label_type, "numbers or names"),
        (split_column, is_text, "names of splits such as train"),
    ]
    types = [(column, schema.field(column).type, holds, expected) for column, holds, expected in checks if column]
    if wrong := [
        f"column {column} is {type}, expected {what}" for column, type, holds, what in types if not holds(type)
    ]:
        raise DataError([f"{name}: {problem}. Convert it." for problem in wrong])
    path = path_text(file[len(os.fsencode(root)) :].lstrip(b"/")) or root.name
    table = str(Path(path).parent / _SHARD.sub("", Path(path).stem))  # without what numbers the files of a split
    names = _class_names(schema, label)
    return _Layout(file, path, image, names, name=table, label=label, split_column=split_column)


def _set_names(layouts: list[_Layout], source: str) -> None:
    """Give the label names of the files that have some to the files without."""
    named = {layout.names for layout in layouts if layout.names}
    without = [layout.path for layout in layouts if layout.label and not layout.names]
    if len(named) > 1 and without:
        raise DataError(
            f"{source}: its files have different names of label numbers, and {without[0]} has none. Store its labels as"
            " names."
        )
    for layout in layouts:
        layout.names = layout.names or next(iter(named), None)


def _is_label_type(type: pa.DataType) -> bool:
    of_values = type.value_type if pa.types.is_dictionary(type) else type
    is_number = pa.types.is_integer(of_values) or pa.types.is_floating(of_values)
    return is_text(type) or bool(is_number or pa.types.is_null(type))


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Return the names in the metadata of the library `datasets` (its ``Features``, type ``ClassLabel``)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):  # no such metadata, or a column of plain numbers
        return None


def _ranges(number: int, metadata: pq.FileMetaData) -> list[pa.Table]:
    """List a file's row groups with the number of their first row, a table a task."""
    groups = range(metadata.num_row_groups)
    rows = [metadata.row_group(group).num_rows for group in groups]
    first = np.cumsum(rows, dtype=int) - rows + 1
    table = pa.table({"file": [number] * len(rows), "group": groups, "first": first, "rows": rows})
    step = max(1, _TASK_ROWS // max([1, *rows]))
    return [table.slice(start, step) for start in range(0, len(rows), step)]


def _read(layouts: list[_Layout], groups: pa.Table, size: int) -> Iterator[pa.Table]:
    for group in groups.to_pylist():
        layout, done = layouts[group["file"]], 0
        columns = [name for name in (layout.image, layout.label, layout.split_column) if name]
        try:
            with pq.ParquetFile(os.fsdecode(layout.file)) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group["group"]], columns=columns):
                    yield _read_batch(batch, group["first"] + done, layout, size)
                    done += len(batch)
        except _ERRORS as error:
            rows = RowBuilder(size)
            for lost in range(group["first"] + done, group["first"] + group["rows"]):
                rows.reject(_id(layout, lost), path_text(layout.file), f"unreadable: damaged Parquet: {error}")
            yield rows.table()


def _read_batch(batch: pa.RecordBatch, first: int, layout: _Layout, size: int) -> pa.Table:
    images = batch[layout.image].to_pylist()
    labels = batch[layout.label].to_pylist() if layout.label else [None] * len(images)
    splits = batch[layout.split_column].to_pylist() if layout.split_column else [layout.split] * len(images)
    rows, path = RowBuilder(size), path_text(layout.file)
    with quiet_decoders():
        for number, (cell, value, named) in enumerate(zip(images, labels, splits, strict=True), start=first):
            try:
                label = _label(value, layout.names)
                image = decode(_bytes(cell), size)
            except (ValueError, ImageError) as error:
                rows.reject(_id(layout, number), path, str(error))
            else:
                rows.add(_id(layout, number), path, str(named or ""), label, image.pixels, image.width, image.height)
    return rows.table()


def _id(layout: _Layout, number: int) -> str:
    return f"{layout.path}:{number:07}"


def _bytes(cell: Any) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None:
        path = cell.get("path") if isinstance(cell, dict) else None
        raise ValueError(f"no image: the cell has only the path {path}" if path else "no image: the cell is null")
    return bytes(data)


def _label(value: Any, names: tuple[str, ...] | None) -> str | None:
    if value is None or value != value:  # NaN, pandas' value for a missing whole number
        return None
    if names is not None and isinstance(value, int | float) and float(value).is_integer():
        if value < 0:  # -1, the value of `datasets` for a missing ClassLabel
            return None
        if value >= len(names):
            raise ValueError(f"label {value}, expected 0 to {len(names) - 1} for the names {', '.join(names)}")
        value = names[int(value)]
    return str(value)
