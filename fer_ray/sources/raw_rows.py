"""Raw rows: the output of reading a source, before it becomes a dataset.

Every file or line of a source gives one row. A row with a ``reason`` has no usable image; its pixels are zero.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from fer_ray.sources.label_names import NumberOrder
from fer_ray.sources.name_options import label_key

NO_LABEL = -1

SOURCE_MISSING = "not on the machine of a Ray worker"
"""The reason in the only row of a source that a worker can't see.

An exception in a worker would reach the driver as text with a traceback.
"""


@dataclass(frozen=True)
class Source:
    """A recognised source.

    Attributes:
        format: ``folder``, ``zip``, ``csv``, ``parquet`` or ``synthetic``.
        name: the path, or the synthetic recipe.
        manifest: a table a task, in source order, that lists what the task reads.
        read: reads a table of the manifest into tables of raw rows with ``raw_schema(size)``, in order; runs in any
            process that sees the same paths.
        total: number of rows, or None if unknown before reading.
        notes: what a user of the data must know.
        has_usage: whether each row has a split of its own.
        number_order: the order of its label numbers.
    """

    format: str
    name: str
    manifest: list[pa.Table]
    read: Callable[..., Iterator[pa.Table]]
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    has_usage: bool = False
    number_order: NumberOrder = "assumed"


def raw_schema(size: int) -> pa.Schema:
    """Return the Arrow schema of raw rows with ``size`` × ``size`` pixels."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),  # of the file, for people
            ("reason", pa.string()),  # why the row is rejected, else null
            ("split", pa.string()),  # as in the source
            ("label", pa.string()),  # as in the source, by label_key; null where unlabelled
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("digest", pa.binary(16)),  # of the pixels
            ("sum", pa.int64()),  # of the pixels, and of their squares
            ("squares", pa.int64()),
            ("flat", pa.bool_()),
            ("pixels", pa.list_(pa.uint8(), size * size)),
        ]
    )


def source_missing(path: str, size: int) -> pa.Table:
    """Return the raw rows of a source that this worker can't see."""
    rows = RowBuilder(size)
    rows.reject(path, path, SOURCE_MISSING)
    return rows.table()


class RowBuilder:
    """Collects rows for an Arrow table."""

    def __init__(self, size: int):
        self.size = size
        self._rows: list[tuple[str, str, str | None, str | None, str | None, int, int]] = []
        self._images: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, id: str, path: str, split: str, label: str | None, pixels: np.ndarray, width: int, height: int
    ) -> None:
        """Add a row with an image.

        Args:
            id: of the row.
            path: of its file.
            split: as in the source.
            label: as in the source; None or blank where unlabelled.
            pixels: uint8, size × size.
            width: of the image before resizing, in pixels.
            height: likewise.
        """
        self._rows.append((id, path, None, split, label_key(label or "") or None, width, height))
        self._images.append(pixels.reshape(-1))

    def reject(self, id: str, path: str, reason: str) -> None:
        """Add a row without a usable image."""
        self._rows.append((id, path, reason, None, None, 0, 0))
        self._images.append(np.zeros(self.size * self.size, np.uint8))

    def table(self) -> pa.Table:
        """Return the rows, with ``raw_schema``."""
        schema = raw_schema(self.size)
        if not self._rows:
            return schema.empty_table()
        pixels = np.stack(self._images)
        digests = [hashlib.blake2b(row, digest_size=16).digest() for row in pixels]
        sums = pixels.sum(1, dtype=np.int64)
        squares = [int(np.square(row, dtype=np.int64).sum()) for row in pixels]  # row by row, to stay small
        flat = pixels.min(1) == pixels.max(1)
        columns = [*zip(*self._rows, strict=True), digests, sums, squares, flat]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), self.size**2))
        return pa.Table.from_arrays(arrays, schema=schema)
