"""The columns of CSV and Parquet tables: found by name, whatever its case, and by type."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from fer_ray.errors import DataError
from fer_ray.sources.split_names import read_splits

IMAGE_COLUMNS = ("image", "img", "img_bytes")
"""Names of a column of image files' bytes, or of structs with them in ``bytes``, as the library `datasets` writes."""

LABEL_COLUMNS = ("emotion", "label", "labels", "emotions", "expression", "class", "target")
"""Names of a column of labels, in lower case."""

SPLIT_COLUMNS = ("usage", "split", "subset", "partition", "data_split")
"""Names of a column of splits, in lower case. The first one that a table has counts."""

_OTHER_COLUMNS = frozenset(
    (*SPLIT_COLUMNS, "id", "image_id", "index", "", "unnamed: 0", "path", "file", "name", "filename")
)
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


def find_label(columns: Sequence[str], file: str) -> str | None:
    """Return the column of labels, or None without one.

    Raises:
        DataError: several columns may hold the labels, and they may differ.
    """
    by_name = {name.strip().lower(): name for name in columns}
    found = [by_name[name] for name in LABEL_COLUMNS if name in by_name]
    if found and found[0].lower() != "emotion":
        found += [
            name
            for key, name in by_name.items()
            if key not in LABEL_COLUMNS and {"label", "emotion", "expression"} & set(re.findall(r"[a-z]+", key))
        ]
    if len(found) > 1:
        raise DataError(f"{file}: {' and '.join(found)} may each hold the labels. Leave one of them in the file.")
    return found[0] if found else None


def require_labels(columns: Iterable[str], image: str, file: str, split: str | None) -> None:
    """Check a table without a column of labels: its rows must be unlabelled on purpose, as in the competition's
    ``test.csv``.

    Args:
        columns: names of all columns.
        image: name of the column of images.
        file: name of the file, for messages.
        split: the split that the file's name says.

    Raises:
        DataError: another column may hold the labels, or the rows are for training.
    """
    others = [name for name in columns if name.strip().lower() not in (_OTHER_COLUMNS | {image.lower()})]
    if others or split == "train":
        raise DataError(
            f"{file}: its columns are {', '.join(columns)}; none is called {', '.join(LABEL_COLUMNS)}. Rename the"
            " column of labels; or, if the rows are unlabelled ones for the test, remove the columns that they don't"
            " need."
        )


def require_no_split_column(values: Mapping[str, Collection[str]], file: str) -> None:
    """Check that no column that isn't read seems to hold splits.

    Args:
        values: by column some of its distinct values.
        file: name of the file, for messages.

    Raises:
        DataError: a column does, by its name or by its values.
    """
    for name, texts in values.items():
        by_text = 0 < len(texts) <= _MOST_SPLITS and all(read_splits([text])[text] for text in texts)
        if by_text or read_splits([name])[name]:
            examples = ", ".join(sorted(texts)[:_MOST_SPLITS])
            raise DataError(
                f"{file}: its column {name} ({examples}) seems to hold splits, which are read from a column called"
                f" {', '.join(SPLIT_COLUMNS)}. Rename the column and use values such as train and test, or remove it."
            )
