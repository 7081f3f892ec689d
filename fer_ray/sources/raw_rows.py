"""Raw rows: what reading a source of any format yields. One place maps their splits and labels
(``fer_ray.dataset.assemble``).

Every file or line of a source gives one row. A row with a ``reason`` has no usable image; its pixels are zero.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from fer_ray.sources.label_names import NumberOrder, label_key

NO_LABEL = -1

SOURCE_MISSING = "not on the machine of a Ray worker"
"""The reason in the only row of a source that a worker can't see. An exception would reach the user as a traceback."""


@dataclass(frozen=True)
class Source:
    """A recognised source.

    ``read`` reads a table of the manifest into tables of raw rows with ``raw_schema(size)``, in order, in any process
    that sees the same paths.
    """

    format: str  # folder, zip, csv, parquet or synthetic
    name: str  # the path or URL, or the synthetic recipe
    manifest: list[pa.Table]  # one a task, in source order, of what the task reads
    read: Callable[..., Iterator[pa.Table]]
    total: int | None = None  # rows, if known before reading
    notes: list[str] = field(default_factory=list)  # what a user of the data must know
    has_usage: bool = False  # whether a column gives the splits; otherwise names gave them already
    number_order: NumberOrder = "assumed"


def raw_schema(size: int) -> pa.Schema:
    """Return the Arrow schema of raw rows with ``size`` × ``size`` pixels."""
    return pa.schema(
        [
            ("id", pa.string()),  # null for a row that is named by its number
            ("path", pa.string()),  # of the file, for people
            ("reason", pa.string()),  # why the row is rejected, else null
            ("split", pa.string()),  # as in the source
            ("label", pa.string()),  # as in the source, by label_key; null where unlabelled
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("pixels", pa.list_(pa.uint8(), size * size)),
        ]
    )


class RowBuilder:
    """Collects rows for an Arrow table."""

    def __init__(self, size: int):
        self._schema = raw_schema(size)
        self._no_image = np.zeros(size * size, np.uint8)
        self._rows: list[tuple[str | None, str, str | None, str | None, str | None, int, int, np.ndarray]] = []

    def add(
        self, id: str | None, path: str, split: str, label: str | None, pixels: np.ndarray, width: int, height: int
    ) -> None:
        """Add a row with an image, uint8, size × size. Width and height are those before resizing. Without an id the
        row is named by its number in the source; a blank label means that it is unlabelled.
        """
        self._rows.append((id, path, None, split, label_key(label or "") or None, width, height, pixels.reshape(-1)))

    def reject(self, id: str | None, path: str, reason: str) -> None:
        """Add a row without a usable image."""
        self._rows.append((id, path, reason, None, None, 0, 0, self._no_image))

    def table(self) -> pa.Table:
        """Return the rows since the last call, with ``raw_schema``."""
        if not self._rows:
            return self._schema.empty_table()
        *columns, images = zip(*self._rows, strict=True)
        self._rows = []
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=False)]
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(images)), len(self._no_image)))
        return pa.Table.from_arrays(arrays, schema=self._schema)
