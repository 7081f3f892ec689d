"""Tables, that is CSV and Parquet files: columns found by name, whatever its case, and splits by the files' names."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.split_names import SPLITS, TreePath, read_splits, split_of_root, splits_of_paths

IMAGE_COLUMNS = ("image", "img", "img_bytes")
"""Names of a column of image files' bytes, or of structs with them in ``bytes``, as the library `datasets` writes."""

LABEL_COLUMNS = ("emotion", "label", "labels", "emotions", "expression", "class", "target")
"""Names of a column of labels, in lower case."""

SPLIT_COLUMNS = ("usage", "split", "subset", "partition", "data_split")
"""Names of a column of splits, in lower case. The first one that a table has counts."""

_OTHER_COLUMNS = frozenset((*SPLIT_COLUMNS, "id", "image_id", "index", "", "unnamed: 0", "path", "file", "filename"))
_MOST_SPLITS = 6  # distinct values in a column of splits


def find_column(schema: pa.Schema, names: tuple[str, ...]) -> str | None:
    """Return the column that has the first of the names."""
    by_name = {name.lower(): name for name in schema.names}
    return next((by_name[name] for name in names if name in by_name), None)


def holds_bytes(type: pa.DataType) -> bool:
    """Return whether a column of this type holds bytes, or structs with bytes in their field ``bytes``."""
    if pa.types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and holds_bytes(type.field("bytes").type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def is_text(type: pa.DataType) -> bool:
    """Return whether a column of this type holds text, dictionary-encoded or not."""
    of_values = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_string(of_values) or pa.types.is_large_string(of_values))


def find_columns(
    names: Sequence[str], image: str, file: str, read_texts: Callable[[list[str]], Mapping[str, Collection[str]]]
) -> tuple[str | None, str | None]:
    """Return the columns of labels and of splits, None without one, of a table with a column of images.

    ``read_texts`` returns some distinct texts of each of some columns. ``DataError`` if several columns may hold the
    labels, or a column by another name may hold the labels or splits.
    """
    by_name = {name.strip().lower(): name for name in names}
    labels = [by_name[name] for name in LABEL_COLUMNS if name in by_name]
    if labels and labels[0].lower() != "emotion":
        similar = {"label", "emotion", "expression"}
        labels += [by_name[k] for k in by_name if k not in LABEL_COLUMNS and similar & set(re.findall(r"[a-z]+", k))]
    if len(labels) > 1:
        raise DataError(f"{file}: {' and '.join(labels)} may each hold the labels. Leave one of them in the file.")
    if not labels and any(name not in _OTHER_COLUMNS | {image.lower()} for name in by_name):
        raise DataError(_no_labels(file, f"its columns are {', '.join(names)}"))
    if split := next((by_name[name] for name in SPLIT_COLUMNS if name in by_name), None):
        return next(iter(labels), None), split
    for name, texts in read_texts([name for name in names if name not in (image, *labels)]).items():
        by_text = 0 < len(texts) <= _MOST_SPLITS and all(read_splits([text])[text] for text in texts)
        if by_text or read_splits([name])[name]:
            examples = ", ".join(sorted(texts)[:_MOST_SPLITS])
            raise DataError(
                f"{file}: its column {name} ({examples}) seems to hold splits, which are read from a column called"
                f" {', '.join(SPLIT_COLUMNS)}. Rename the column and use values such as train and test, or remove it."
            )
    return next(iter(labels), None), None


def _no_labels(file: str, found: str) -> str:
    return (
        f"{file}: {found}, and none is called {', '.join(LABEL_COLUMNS)}. Rename the column of labels; or, if the rows"
        " are unlabelled ones for the test, name the file so and remove the columns that they don't need."
    )


@dataclass(kw_only=True)
class TableLayout:
    """What all rows of a table have in common."""

    name: str  # path below the source, without what doesn't name the split
    label: str | None  # column of labels
    split_column: str | None
    split: str = ""  # of all rows, in a table without a column of splits


def set_splits(root: Path, tables: Sequence[TableLayout], options: NameOptions, is_table: bool) -> list[str]:
    """Set the split of each table's rows that have none in a column, by the tables' names; return notes for the user.

    ``is_table`` says that the source is a table itself, not the folder or .zip of some. ``DataError`` if of several
    tables one has a name that means no split, or the rows of one are for training and it has no labels.
    """
    trees = {table.name: TreePath(parts := PurePosixPath(table.name).parts, len(parts)) for table in tables}
    of_trees, notes = splits_of_paths(set(trees.values()), options.splits, str(root))
    if len(trees) > 1 and (unclear := next((path for path, tree in trees.items() if not of_trees[tree]), None)):
        raise DataError(
            f"{root}: holds several tables, {', '.join(trees)}, and {unclear} means no split. Name the split by"
            f" --splits '{PurePosixPath(unclear).name}=SPLIT' ({', '.join(SPLITS)}), or give one file as SOURCE."
        )
    default, root_notes = split_of_root(root, options.splits, is_table)
    for table in tables:
        table.split = of_trees[trees[table.name]] or default or ("train" if table.label else "test")
    unlabelled = [table for table in tables if table.label is None]
    if wrong := [table.name for table in unlabelled if table.split == "train"]:
        raise DataError(_no_labels(str(root), f"the rows of {wrong[0]} are for training"))
    if unlabelled:
        notes.append(f"{unlabelled[0].name} has no column of labels, so its rows are unlabelled.")
    return notes + (root_notes if None in of_trees.values() else [])
