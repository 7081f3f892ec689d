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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.errors import DataError
from fer_ray.images.decode import ImageError, decode
from fer_ray.images.decoder_warnings import quiet_decoders
from fer_ray.images.image_files import is_regular, list_files, path_text
from fer_ray.sources.image_trees import IMAGE_SUFFIXES
from fer_ray.sources.name_options import NameOptions
from fer_ray.sources.raw_rows import RowBuilder, Source, source_missing
from fer_ray.sources.split_names import TreePath, read_splits, split_of_root, splits_of_paths
from fer_ray.sources.table_columns import (
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    find_column,
    find_label,
    holds_bytes,
    is_text,
    require_labels,
    require_no_split_column,
)

_MAGIC = b"PAR1"
_SHARD = re.compile(r"([-_.]\d{4,}-of-\d{4,}.*|(?<=^part)[-_.]?\d+.*|[-_.]?\d+)$")  # numbers the files of a split
_TASK_ROWS = 2048  # a task reads row groups up to this many rows
_BATCH_ROWS = 256  # in memory at once, as images may be large files
_ERRORS = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class _Layout:
    """The columns of a file.

    Attributes:
        path: as text, relative to the source.
        image: name of the column of images.
        label: name of the column of labels, or None.
        names: label names by number, or None.
        split_column: name of the column of splits, or None.
        split: of all rows, in a file without a column of splits; None until all files' names are known.
    """

    path: str
    image: str
    label: str | None
    names: tuple[str, ...] | None
    split_column: str | None
    split: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.image, self.label, self.split_column) if name]


def find_parquet(path: Path) -> list[bytes]:
    """Return the Parquet files to read for a path: the file itself, or those at any depth of a folder, by content."""
    no_parquet = tuple(os.fsencode(suffix) for suffix in IMAGE_SUFFIXES)
    # An unreadable folder is ignored here; reading the source as a tree of images reports it.
    listed = list_files([path], lambda error: None)
    files = (file for file in listed if not file.lower().endswith(no_parquet))
    return [file for file in files if is_regular(Path(os.fsdecode(file))) and _starts_as_parquet(file)]


def open_parquet(path: Path, files: list[bytes], options: NameOptions) -> Source:
    """Return Parquet files as one source. Ids are a file's path below the source and the row's number from 1.

    Raises:
        DataError: a file is damaged, has no rows or no column of images, or labels of a wrong type, all at once; or the
            splits are unclear.
    """
    layouts: list[_Layout] = []
    manifest: list[pa.Table] = []
    problems, total = [], 0
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(os.fsdecode(file)) as opened:
                layouts.append(_layout(path, file, opened.schema_arrow))
                if opened.metadata.num_row_groups and not layouts[-1].split_column:
                    require_no_split_column(_unread_texts(opened, layouts[-1]), path_text(file))
                manifest += _ranges(number, opened.metadata)
                total += opened.metadata.num_rows
        except _ERRORS as error:
            problems.append(
                f"{path_text(file)}: not readable as Parquet: {str(error).rstrip('.')}. Copy or download it again."
            )
        except DataError as error:
            problems += error.problems
    if not problems and not total:
        problems.append(f"{path}: its Parquet files have no rows. Expected rows with an image and a label.")
    if problems:
        raise DataError(problems)
    layouts, notes = _with_splits(path, layouts, options)
    if unlabelled := [layout.path for layout in layouts if layout.label is None]:
        notes.append(f"{unlabelled[0]}: no label column in {len(unlabelled)} file(s), whose rows are unlabelled.")
    return Source(
        format="parquet",
        name=path_text(os.fsencode(path)),
        manifest=manifest,
        read=functools.partial(_read, files, layouts),
        total=total,
        notes=notes,
    )


def _unread_texts(opened: pq.ParquetFile, layout: _Layout) -> dict[str, set[str]]:
    schema = opened.schema_arrow
    unread = [name for name in schema.names if name not in layout.columns and is_text(schema.field(name).type)]
    table = opened.read_row_group(0, columns=unread) if unread else pa.table({})
    texts = {name: {str(text) for text in table[name].unique().to_pylist() if text is not None} for name in unread}
    return {name: texts.get(name, set()) for name in schema.names if name not in layout.columns}


def _starts_as_parquet(file: bytes) -> bool:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - bytes, for names that are not UTF-8
            return opened.read(4) == _MAGIC
    except OSError as error:
        if file.lower().endswith(b".parquet"):
            raise DataError(f"{path_text(file)}: can't be read: {error.strerror}.") from error
        return False  # its name isn't that of a Parquet file


def _layout(root: Path, file: bytes, schema: pa.Schema) -> _Layout:
    path = path_text(file[len(os.fsencode(root)) :].lstrip(b"/")) or root.name
    label = find_label(schema.names, path_text(file))
    image, split_column = (find_column(schema, names) for names in (IMAGE_COLUMNS, SPLIT_COLUMNS))
    if image is None:
        raise DataError(
            f"{path_text(file)}: none of its columns {', '.join(schema.names)} is called {', '.join(IMAGE_COLUMNS)}."
            " Rename the column of the image files' bytes."
        )
    problems = []
    if not holds_bytes(schema.field(image).type):
        problems.append(
            f"{path_text(file)}: column {image} is {schema.field(image).type}, expected bytes or a struct of them."
            " Store the image files' bytes in it."
        )
    if label is not None and not _is_label_type(schema.field(label).type):
        problems.append(f"{path_text(file)}: column {label} is {schema.field(label).type}, expected numbers or names.")
    if split_column is not None and not is_text(schema.field(split_column).type):
        found = schema.field(split_column).type
        problems.append(
            f"{path_text(file)}: column {split_column} is {found}, expected names of splits. Store names such as train."
        )
    if problems:
        raise DataError(problems)
    if label is None:
        name = Path(path).name
        require_labels(schema.names, image, path_text(file), None if split_column else read_splits([name])[name])
    return _Layout(path, image, label, _class_names(schema, label), split_column)


def _with_splits(root: Path, layouts: list[_Layout], options: NameOptions) -> tuple[list[_Layout], list[str]]:
    """Set the split of each file without a column of splits by names; return notes for the user too."""

    def tree_path(layout: _Layout) -> TreePath:
        *folders, name = Path(layout.path).parts
        names = (*folders, _SHARD.sub("", Path(name).stem))
        return TreePath(names, len(names))

    paths = {tree_path(layout) for layout in layouts if layout.split_column is None}
    splits, notes = splits_of_paths(paths, options.splits, str(root))
    default, root_notes = split_of_root(root, options.splits, is_table=root.is_file())
    layouts = _with_names(layouts, str(root))
    return [
        replace(layout, split=splits.get(tree_path(layout)) or default or ("train" if layout.label else "test"))
        for layout in layouts
    ], notes + (root_notes if None in splits.values() else [])


def _with_names(layouts: list[_Layout], source: str) -> list[_Layout]:
    """Give the label names of the files that have some to the files without."""
    named = {layout.names for layout in layouts if layout.names}
    without = [layout.path for layout in layouts if layout.label and not layout.names]
    if len(named) > 1 and without:
        raise DataError(
            f"{source}: its files have different names of label numbers, and {without[0]} has none. Store its labels as"
            " names."
        )
    return [replace(layout, names=layout.names or next(iter(named), None)) for layout in layouts]


def _is_label_type(type: pa.DataType) -> bool:
    of_values = type.value_type if pa.types.is_dictionary(type) else type
    return is_text(type) or _is_number(of_values) or bool(pa.types.is_null(type))


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Return the names in the metadata of the library `datasets` (its ``Features``, type ``ClassLabel``)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):  # no such metadata, or a column of plain numbers
        return None


def _ranges(number: int, metadata: pq.FileMetaData) -> Iterator[pa.Table]:
    """List a file's row groups with the number of their first row, a table a task."""
    groups: list[dict[str, int]] = []
    rows, first = 0, 1
    for group in range(metadata.num_row_groups):
        length = metadata.row_group(group).num_rows
        groups.append({"file": number, "group": group, "first": first, "rows": length})
        rows, first = rows + length, first + length
        if rows >= _TASK_ROWS or group == metadata.num_row_groups - 1:
            yield pa.Table.from_pylist(groups)
            groups, rows = [], 0


def _read(files: list[bytes], layouts: list[_Layout], groups: pa.Table, size: int) -> Iterator[pa.Table]:
    for group in groups.to_pylist():
        file, layout = files[group["file"]], layouts[group["file"]]
        if not Path(os.fsdecode(file)).exists():
            yield source_missing(path_text(file), size)
            return
        done = 0
        try:
            with pq.ParquetFile(os.fsdecode(file)) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group["group"]], columns=layout.columns):
                    yield _read_batch(batch, group["first"] + done, layout, file, size)
                    done += len(batch)
        except _ERRORS as error:
            rows = RowBuilder(size)
            for lost in range(group["first"] + done, group["first"] + group["rows"]):
                rows.reject(_id(layout, lost), path_text(file), f"unreadable: damaged Parquet: {error}")
            yield rows.table()


def _read_batch(batch: pa.RecordBatch, first: int, layout: _Layout, file: bytes, size: int) -> pa.Table:
    images = batch[layout.image].to_pylist()
    labels = batch[layout.label].to_pylist() if layout.label else [None] * len(images)
    splits = batch[layout.split_column].to_pylist() if layout.split_column else [layout.split] * len(images)
    rows, path = RowBuilder(size), path_text(file)
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
