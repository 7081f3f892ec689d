"""Raw rows to a prepared dataset: collect them on disk, find what they share, write the splits.

Pixels wait in a file beside the dataset, so that memory holds only a few dozen bytes a row.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.data.rows import raw_schema
from fer_ray.data.store import SPLITS, SplitInfo, images_of, schema
from fer_ray.emotions import EMOTIONS, NUM_CLASSES

NO_LABEL = -1
_GROUP_BYTES = 16 << 20
_GROUP_ROWS = 4096  # rows a row group, fewer where images are large
_FILE_GROUPS = 4


class Spool:
    """Collects raw rows, the pixels of the good ones in a file that is removed at the end. A context manager.

    Args:
        file: where to keep the pixels.
        size: side of the images.
    """

    def __init__(self, file: Path, size: int):
        self.file, self.size = file, size
        self._good: list[pa.Table] = []
        self._bad: list[pa.Table] = []

    def __enter__(self) -> Self:
        self._out = self.file.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()
        self.file.unlink()

    def add(self, rows: pa.Table) -> None:
        """Append raw rows, with ``raw_schema(size)``."""
        is_bad = pc.is_valid(rows["reason"])
        good = rows.filter(pc.invert(is_bad))
        self._out.write(images_of(good["pixels"], self.size).data)
        self._good.append(_copy(good.drop_columns(["pixels", "path", "reason"])))
        self._bad.append(_copy(rows.filter(is_bad).select(["id", "path", "reason"])))

    def rejects(self) -> pa.Table:
        """Return ``id``, ``path`` and ``reason`` of the rows that can't be used."""
        names = pa.schema([raw_schema(self.size).field(name) for name in ("id", "path", "reason")])
        return pa.concat_tables([names.empty_table(), *self._bad])

    def rows(self) -> "Rows":
        """Return the good rows, once all are added."""
        self._out.flush()
        fields = [field for field in raw_schema(self.size) if field.name not in ("pixels", "path", "reason")]
        table = pa.concat_tables([pa.schema(fields).empty_table(), *self._good]).combine_chunks()
        return Rows(
            ids=table["id"],
            splits=pc.index_in(table["split"], pa.array(SPLITS)).to_numpy().astype(np.int8),
            labels=pc.fill_null(table["label"], NO_LABEL).to_numpy(),
            sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()]),
            digests=np.array(table["digest"].to_pylist(), dtype="V16"),
            sums=table["sum"].to_numpy(),
            squares=table["squares"].to_numpy(),
            flat=pc.cast(table["flat"], pa.uint8()).to_numpy().astype(bool),
        )

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the pictures of some good rows by number, uint8, n × size × size."""
        # Mapped anew each time, so that what was read before doesn't count as this process's memory.
        mapped = np.memmap(self.file, np.uint8, "r").reshape(-1, self.size, self.size)
        return np.asarray(mapped[rows])


def _copy(table: pa.Table) -> pa.Table:
    """Free a table from the block it was cut out of, which would else stay in Ray's object store."""
    columns = [pa.array(column.to_pylist(), column.type) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


@dataclass
class Rows:
    """All good rows, n of them in source order, without their pixels.

    Attributes:
        ids: string.
        splits: int8, index into ``SPLITS``.
        labels: int8, csv order, ``NO_LABEL`` where unlabelled.
        sizes: int32, 2 × n, width and height as found.
        digests: 16 bytes, equal where the pixels are equal.
        sums: int64, of the pixels.
        squares: int64, of the squared pixels.
        flat: bool, one colour.
        soft: float32, n × 7, shares of votes, csv order, NaN where a row has none; None without votes.
    """

    ids: pa.ChunkedArray
    splits: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    flat: np.ndarray
    soft: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.splits)

    def of_split(self, split: str) -> np.ndarray:
        """Return the numbers of a split's rows, in source order."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def groups(self) -> np.ndarray:
        """Return a number for each row, int64, the same where the pixels are the same."""
        words = self.digests.view("<u8").reshape(-1, 2)
        return np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)


def take_validation(rows: Rows, fraction: float, seed: int) -> int:
    """Move a stratified random share of the labelled training rows to validation, and return how many moved.

    Identical pictures stay together, and count for the label of the first of them. Every class that has two different
    pictures gets at least one on either side.
    """
    rng = np.random.default_rng(seed)
    train = rows.of_split("train")
    train = train[rows.labels[train] != NO_LABEL]
    _, first, group, counts = np.unique(
        rows.groups()[train], return_index=True, return_inverse=True, return_counts=True
    )
    moved = np.zeros(len(counts), bool)
    for label in range(NUM_CLASSES):
        members = rng.permutation(np.flatnonzero(rows.labels[train[first]] == label))
        reached = np.cumsum(counts[members])
        if len(members) > 1:
            wanted = round(fraction * reached[-1])
            take = np.searchsorted(reached, wanted, side="right")
            moved[members[: np.clip(take, 1, len(members) - 1)]] = True
    rows.splits[train[moved[group]]] = SPLITS.index("validation")
    return int(moved[group].sum())


@dataclass(frozen=True)
class Findings:
    """What rows share with each other, n of each.

    Attributes:
        first: int64, number of the first row with the same pixels, in the order train, validation, test.
        leaked: bool, in validation or test while the same pixels are in train.
        conflict: bool, labelled, while the same pixels stand elsewhere under another label.
    """

    first: np.ndarray
    leaked: np.ndarray
    conflict: np.ndarray


def find_duplicates(rows: Rows) -> Findings:
    """Compare all rows by their pixels."""
    order = np.argsort(rows.splits, kind="stable")
    _, first, group = np.unique(rows.groups()[order], return_index=True, return_inverse=True)
    first_of = np.empty(len(rows), np.int64)
    first_of[order] = order[first[group]]
    leaked = (rows.splits != 0) & (rows.splits[first_of] == 0)
    labelled = rows.labels != NO_LABEL
    # Two labels in a group: its smallest and largest differ.
    low, high = np.full(len(rows), NUM_CLASSES, np.int8), np.full(len(rows), NO_LABEL, np.int8)
    np.minimum.at(low, first_of[labelled], rows.labels[labelled])
    np.maximum.at(high, first_of[labelled], rows.labels[labelled])
    return Findings(first_of, leaked, labelled & (low[first_of] < high[first_of]))


def mean_and_std(rows: Rows, numbers: np.ndarray, size: int) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of some rows, 0 to 1."""
    pixels = len(numbers) * size * size
    mean = int(rows.sums[numbers].sum()) / pixels
    variance = int(rows.squares[numbers].sum()) / pixels - mean**2
    return mean / 255, float(np.sqrt(max(variance, 0.0))) / 255


def split_info(rows: Rows, findings: Findings, numbers: np.ndarray) -> SplitInfo:
    """Count what a split holds."""
    labels = rows.labels[numbers]
    counts = np.bincount(labels[labels != NO_LABEL], minlength=NUM_CLASSES).tolist()
    return SplitInfo(
        rows=len(numbers),
        labels=dict(zip(EMOTIONS, counts, strict=True)),
        unlabelled=int((labels == NO_LABEL).sum()),
        duplicates=int((findings.first[numbers] != numbers).sum()),
        leaked=int(findings.leaked[numbers].sum()),
        conflicts=int(findings.conflict[numbers].sum()),
        flat=int(rows.flat[numbers].sum()),
    )


class SplitWriter:
    """Writes splits as Parquet and keeps the fingerprint: SHA-256 over each split's name, ids, labels and pixels."""

    def __init__(self, folder: Path, spool: Spool, rows: Rows, findings: Findings):
        self.folder, self.spool, self.rows, self.findings = folder, spool, rows, findings
        self._hash = hashlib.sha256()

    def write(self, split: str) -> Iterator[int]:
        """Write a split, yielding the number of rows after each row group."""
        numbers = self.rows.of_split(split)
        ids = "\n".join(self.rows.ids.take(pa.array(numbers)).to_pylist())
        self._hash.update(f"{split}\n{ids}\n".encode())
        self._hash.update(self.rows.labels[numbers].tobytes())
        if self.rows.soft is not None:
            self._hash.update(self.rows.soft[numbers].tobytes())
        (self.folder / split).mkdir()
        group = max(1, min(_GROUP_ROWS, _GROUP_BYTES // self.spool.size**2))
        for part, at in enumerate(range(0, len(numbers), group * _FILE_GROUPS)):
            # No compression: the dictionary brings a pixel to 8 bits, and faces don't get smaller than that.
            file = self.folder / split / f"part-{part:05}.parquet"
            columns = schema(self.spool.size, self.rows.soft is not None)
            with pq.ParquetWriter(file, columns, compression="none", write_statistics=["id"]) as out:
                for start in range(at, min(at + group * _FILE_GROUPS, len(numbers)), group):
                    chosen = numbers[start : min(start + group, at + group * _FILE_GROUPS)]
                    out.write_table(self._table(chosen))
                    yield len(chosen)

    def fingerprint(self) -> str:
        """Return the fingerprint of the splits written so far."""
        return self._hash.hexdigest()

    def _table(self, numbers: np.ndarray) -> pa.Table:
        rows, findings = self.rows, self.findings
        pixels = self.spool.pixels(numbers).reshape(-1)
        self._hash.update(pixels.data)
        first, labels = findings.first[numbers], rows.labels[numbers]
        marks = {"flat": rows.flat, "leaked": findings.leaked, "conflict": findings.conflict}
        flags = [[name for name, of_row in marks.items() if of_row[number]] for number in numbers]
        columns = [
            rows.ids.take(pa.array(numbers)).combine_chunks(),
            pa.array(labels, pa.int8(), mask=labels == NO_LABEL),
            pa.FixedSizeListArray.from_arrays(pa.array(pixels), self.spool.size**2),
            pa.array(rows.sizes[0, numbers], pa.int32()),
            pa.array(rows.sizes[1, numbers], pa.int32()),
            rows.ids.take(pa.array(first, mask=first == numbers)).combine_chunks(),
            pa.array(flags, pa.list_(pa.string())),
        ]
        if rows.soft is not None:
            columns.append(_soft_column(rows.soft[numbers]))
        return pa.Table.from_arrays(columns, schema=schema(self.spool.size, rows.soft is not None))


def _soft_column(shares: np.ndarray) -> pa.Array:
    missing = pa.array(np.isnan(shares[:, 0]))
    return pa.FixedSizeListArray.from_arrays(pa.array(shares.reshape(-1)), NUM_CLASSES, mask=missing)
