"""Parquet as model hubs keep images: a file, or a folder of files such as ``data/train-00000-of-00002.parquet``.

Columns are found by name, case aside. ``image`` (or ``img``, ``img_bytes``): an image file's bytes, or a struct with
them in ``bytes``. ``label`` (or another of ``naming.LABEL_COLUMNS``): a number, or a name; without the column, or where
it is null, a row is unlabelled. Numbers stand for the names that Hugging Face datasets write into the schema's
metadata; what they mean without such names: ``fer_ray.sources.label_names``. A column ``split`` (or another of
``naming.SPLIT_COLUMNS``) gives the split of each row; without it the names of the file and of the folders that it lies
in do, by ``fer_ray.sources.split_names``. Files are read by ranges of row groups, so that their size doesn't matter.
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
from fer_ray.images.image_files import is_regular, list_files, shown
from fer_ray.sources.image_trees import IMAGE_SUFFIXES
from fer_ray.sources.label_names import SPLIT_COLUMNS, Naming, find_label, require_labels, require_no_split_column
from fer_ray.sources.parquet_columns import IMAGE, find_column, holds_bytes, is_text
from fer_ray.sources.raw_rows import RowBuilder, Source, source_missing
from fer_ray.sources.split_names import Place, read_splits, split_of_root, splits_of_places

_MAGIC = b"PAR1"
_SHARD = re.compile(r"([-_.]\d{4,}-of-\d{4,}.*|(?<=^part)[-_.]?\d+.*|[-_.]?\d+)$")  # tells the files of a split apart
_TASK_ROWS = 2048  # row groups are read together up to this
_BATCH_ROWS = 256  # in memory at once, as images may be large files
_ERRORS = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class _Layout:
    """What is in a file.

    Attributes:
        path: as text, relative to the source.
        image: name of the column.
        label: likewise, or None.
        names: that label numbers stand for, or None.
        split_column: that names the split of each row, or None.
        split: of the rows of a file without that column; None until all files' names are known.
    """

    path: str
    image: str
    label: str | None
    names: tuple[str, ...] | None
    split_column: str | None
    split: str | None = None

    @property
    def columns(self) -> list[str]:
        """Those to be read."""
        return [name for name in (self.image, self.label, self.split_column) if name]


def find_parquet(path: Path) -> list[bytes]:
    """Return the Parquet files to read for a path: the file itself, or those at any depth of a folder, by content."""
    no_parquet = tuple(os.fsencode(suffix) for suffix in IMAGE_SUFFIXES)
    # Folders that can't be listed are passed over here; reading the source as a tree of images names them.
    listed = list_files([path], lambda error: None)
    files = (file for file in listed if not file.lower().endswith(no_parquet))
    return [file for file in files if is_regular(Path(os.fsdecode(file))) and _starts_as_parquet(file)]


def open_parquet(path: Path, files: list[bytes], naming: Naming) -> Source:
    """Return Parquet files as one source. Ids are a file's path below the source and the row's number from 1.

    Raises:
        DataError: a file is damaged, has no rows or no column of images, or labels of an unusable type, all at once; or
            names don't tell the splits.
    """
    layouts: list[_Layout] = []
    manifest: list[pa.Table] = []
    problems, total = [], 0
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(os.fsdecode(file)) as opened:
                layouts.append(_layout(path, file, opened.schema_arrow))
                if opened.metadata.num_row_groups and not layouts[-1].split_column:
                    require_no_split_column(_unread_texts(opened, layouts[-1]), shown(file))
                manifest += _ranges(number, opened.metadata)
                total += opened.metadata.num_rows
        except _ERRORS as error:
            problems.append(
                f"{shown(file)}: not readable as Parquet: {str(error).rstrip('.')}. Copy or download it again."
            )
        except DataError as error:
            problems += error.problems
    if not problems and not total:
        problems.append(f"{path}: its Parquet files have no rows. Expected rows with an image and a label.")
    if problems:
        raise DataError(problems)
    layouts, notes = _with_splits(path, layouts, naming)
    if unlabelled := [layout.path for layout in layouts if layout.label is None]:
        notes.append(f"{unlabelled[0]}: no label column in {len(unlabelled)} file(s), whose rows are unlabelled.")
    return Source(
        format="parquet",
        name=shown(os.fsencode(path)),
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
            raise DataError(f"{shown(file)}: can't be read: {error.strerror}.") from error
        return False  # by its name it isn't meant as one


def _layout(root: Path, file: bytes, schema: pa.Schema) -> _Layout:
    path = shown(file[len(os.fsencode(root)) :].lstrip(b"/")) or root.name
    label = find_label(schema.names, shown(file))
    image, split_column = (find_column(schema, names) for names in (IMAGE, SPLIT_COLUMNS))
    if image is None:
        raise DataError(
            f"{shown(file)}: none of its columns {', '.join(schema.names)} is called {', '.join(IMAGE)}. Rename the"
            " one that holds the image files' bytes."
        )
    problems = []
    if not holds_bytes(schema.field(image).type):
        problems.append(
            f"{shown(file)}: column {image} is {schema.field(image).type}, expected bytes or a struct of them."
            " Store the image files' bytes in it."
        )
    if label is not None and not _is_label_type(schema.field(label).type):
        problems.append(
            f"{shown(file)}: column {label} is {schema.field(label).type}, expected numbers or names. Store one a row."
        )
    if split_column is not None and not is_text(schema.field(split_column).type):
        found = schema.field(split_column).type
        problems.append(
            f"{shown(file)}: column {split_column} is {found}, expected names of splits. Store names such as train."
        )
    if problems:
        raise DataError(problems)
    if label is None:
        name = Path(path).name
        require_labels(schema.names, image, shown(file), None if split_column else read_splits([name])[name])
    return _Layout(path, image, label, _class_names(schema, label), split_column)


def _with_splits(root: Path, layouts: list[_Layout], naming: Naming) -> tuple[list[_Layout], list[str]]:
    """Give each file without a column of splits the one that names mean; return what is to be said about them too."""

    def place(layout: _Layout) -> Place:
        *folders, name = Path(layout.path).parts
        names = (*folders, _SHARD.sub("", Path(name).stem))
        return Place(names, len(names))

    places = {place(layout) for layout in layouts if layout.split_column is None}
    splits, notes = splits_of_places(places, naming.splits, str(root))
    default, said = split_of_root(root, naming.splits, is_table=root.is_file())
    layouts = _with_one_naming(layouts, str(root))
    return [
        replace(layout, split=splits.get(place(layout)) or default or ("train" if layout.label else "test"))
        for layout in layouts
    ], notes + (said if None in splits.values() else [])


def _with_one_naming(layouts: list[_Layout], where: str) -> list[_Layout]:
    """Let the names that one file says for its label numbers count for those that say none."""
    named = {layout.names for layout in layouts if layout.names}
    without = [layout.path for layout in layouts if layout.label and not layout.names]
    if len(named) > 1 and without:
        raise DataError(
            f"{where}: its files say different names for label numbers, and {without[0]} says none. Write the labels of"
            " that as names."
        )
    return [replace(layout, names=layout.names or next(iter(named), None)) for layout in layouts]


def _is_label_type(type: pa.DataType) -> bool:
    of_values = type.value_type if pa.types.is_dictionary(type) else type
    return is_text(type) or _is_number(of_values) or bool(pa.types.is_null(type))


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Return the names in the metadata that the library `datasets` writes (its ``Features``, type ``ClassLabel``)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):  # no such metadata, or a column of plain numbers
        return None


def _ranges(number: int, metadata: pq.FileMetaData) -> Iterator[pa.Table]:
    """List a file's row groups, with the number of their first row, in tables of some thousand rows each."""
    groups: list[dict[str, int]] = []
    rows, first = 0, 1
    for group in range(metadata.num_row_groups):
        length = metadata.row_group(group).num_rows
        groups.append({"file": number, "group": group, "first": first, "rows": length})
        rows, first = rows + length, first + length
        if rows >= _TASK_ROWS or group == metadata.num_row_groups - 1:
            yield pa.Table.from_pylist(groups)
            groups, rows = [], 0


def _read(files: list[bytes], layouts: list[_Layout], pieces: pa.Table, size: int) -> Iterator[pa.Table]:
    for piece in pieces.to_pylist():
        file, layout = files[piece["file"]], layouts[piece["file"]]
        if not Path(os.fsdecode(file)).exists():
            yield source_missing(shown(file), size)
            return
        done = 0
        try:
            with pq.ParquetFile(os.fsdecode(file)) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[piece["group"]], columns=layout.columns):
                    yield _read_batch(batch, piece["first"] + done, layout, file, size)
                    done += len(batch)
        except _ERRORS as error:
            rows = RowBuilder(size)
            for lost in range(piece["first"] + done, piece["first"] + piece["rows"]):
                rows.reject(_id(layout, lost), shown(file), f"unreadable: damaged Parquet: {error}")
            yield rows.table()


def _read_batch(batch: pa.RecordBatch, first: int, layout: _Layout, file: bytes, size: int) -> pa.Table:
    images = batch[layout.image].to_pylist()
    labels = batch[layout.label].to_pylist() if layout.label else [None] * len(images)
    splits = batch[layout.split_column].to_pylist() if layout.split_column else [layout.split] * len(images)
    rows, path = RowBuilder(size), shown(file)
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
        raise ValueError(f"no image: only the path {path} is there" if path else "no image: the cell is null")
    return bytes(data)


def _label(value: Any, names: tuple[str, ...] | None) -> str | None:
    if value is None or value != value:  # NaN, with which pandas fills whole numbers that are missing
        return None
    if names is not None and isinstance(value, int | float) and float(value).is_integer():
        if value < 0:  # the library `datasets` writes a missing ClassLabel so
            return None
        if value >= len(names):
            raise ValueError(f"label {value}, expected 0 to {len(names) - 1} for the names {', '.join(names)}")
        value = names[int(value)]
    return str(value)
