"""The labelled rows of a split by Parquet row group: dealt to workers, put in a mixed order, and read."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.dataset.columns import images_of, labels_of, soft_labels_of
from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import DataError

READERS = 2
"""Threads that read, where a caller reads ahead; pyarrow decodes a column of a row group in one thread."""
AHEAD = 4
"""Row groups that are read before they are asked for."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RowGroupSlice:
    """Labelled rows of one row group.

    Attributes:
        file: the Parquet file.
        group: number of the row group in it.
        start: the first row, counted among the labelled rows of the group.
        stop: the row after the last one, counted likewise.
    """

    file: Path
    group: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class RowBlock:
    """What a network learns from of n labelled rows.

    Attributes:
        images: uint8, n × size × size, 0 black to 255 white.
        labels: int64, n, csv order.
        soft_labels: float32, n × 7, shares of votes, csv order; None where the dataset has none.
    """

    images: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: np.ndarray | slice) -> "RowBlock":
        """Return some rows: a copy of them by number, a view of a slice."""
        shares = None if self.soft_labels is None else self.soft_labels[rows]
        return RowBlock(self.images[rows], self.labels[rows], shares)

    def put(self, rows: np.ndarray | slice, block: "RowBlock") -> None:
        """Write other rows over some of these."""
        self.images[rows], self.labels[rows] = block.images, block.labels
        if self.soft_labels is not None:
            self.soft_labels[rows] = block.soft_labels


def pieces_of(dataset: PreparedDataset, split: str) -> list[RowGroupSlice]:
    """Return the row groups of a split that have labelled rows, in source order.

    Raises:
        DataError: a file can't be read, or the files hold another number of rows than ``dataset.json`` says.
    """
    pieces, rows = list[RowGroupSlice](), 0
    all_labelled = dataset.info.splits[split].unlabelled == 0
    for file in dataset.files(split):
        metadata = _reading(file, partial(pq.read_metadata, file))
        for group in range(metadata.num_row_groups):
            length = metadata.row_group(group).num_rows
            rows += length
            labelled = length if all_labelled else length - _columns(file, group, ["label"])["label"].null_count
            if labelled:
                pieces.append(RowGroupSlice(file, group, 0, labelled))
    expected = dataset.info.splits[split].rows
    if rows != expected:
        raise DataError(
            f"{dataset.path / split}: holds {rows} rows, {DATASET_FILE} says {expected}. Prepare the dataset again."
        )
    return pieces


def deal(pieces: Sequence[RowGroupSlice], rank: int, workers: int) -> list[RowGroupSlice]:
    """Return one worker's share: each has the same number of rows but for one, and together they have each row once.

    Sources are often sorted by label, so a share takes its row groups from all over the split: every ``workers``-th.
    Where shares wouldn't come out even, neighbours share a row group.
    """
    turns = [piece for turn in range(workers) for piece in pieces[turn::workers]]
    total = sum(map(len, turns))
    return between(turns, total * rank // workers, total * (rank + 1) // workers)


def between(pieces: Sequence[RowGroupSlice], first: int, last: int) -> list[RowGroupSlice]:
    """Return what holds the rows from ``first`` up to ``last``, exclusive, counted over all pieces."""
    chosen, at = [], 0
    for piece in pieces:
        start, stop = max(first - at, 0), min(last - at, len(piece))
        if start < stop:
            chosen.append(RowGroupSlice(piece.file, piece.group, piece.start + start, piece.start + stop))
        at += len(piece)
    return chosen


def mixed(pieces: Sequence[RowGroupSlice], strata: int, random: np.random.Generator) -> list[RowGroupSlice]:
    """Return the pieces in a random order whose every ``strata`` next ones come from all over the split.

    The split is cut into that many stretches, of which each round takes one piece each: the labels of a sorted source
    are met in nearly their shares from the first round on.
    """
    ends = (
        np.arange(1, strata) * len(pieces) // strata
    )  # the longer stretches are spread too, as the last round is theirs
    shuffled = [random.permutation(stretch) for stretch in np.split(np.arange(len(pieces)), ends)]
    order = list[RowGroupSlice]()
    for turn in range(max(map(len, shuffled))):
        numbers = [int(stretch[turn]) for stretch in shuffled if turn < len(stretch)]
        order += [pieces[number] for number in random.permutation(np.array(numbers))]
    return order


def read_labels(piece: RowGroupSlice) -> np.ndarray:
    """Read the labels of a piece, int64.

    Raises:
        DataError: the file can't be read.
    """
    return labels_of(table_of(piece, ["label"]))


def read_piece(piece: RowGroupSlice, size: int, soft: bool) -> RowBlock:
    """Read a piece; arguments as in ``DatasetInfo``.

    Raises:
        DataError: the file can't be read.
    """
    table = table_of(piece, ["label", "pixels", *(["soft_label"] if soft else [])])
    return RowBlock(
        images_of(table["pixels"], size),
        labels_of(table),
        soft_labels_of(table) if soft else None,
    )


def table_of(piece: RowGroupSlice, columns: list[str]) -> pa.Table:
    """Read some columns, ``label`` among them, of a piece.

    Raises:
        DataError: the file can't be read.
    """
    table = _columns(piece.file, piece.group, columns)
    if table["label"].null_count:
        table = table.filter(pc.is_valid(table["label"]))
    return table.slice(piece.start, len(piece))


def read_ahead(read: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Yield ``read(item)`` of each item in order, while threads are already reading the next ones.

    Closing the iterator waits for the reads under way.
    """
    with ThreadPoolExecutor(READERS, "read-ahead") as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _columns(file: Path, group: int, columns: list[str]) -> pa.Table:
    def read() -> pa.Table:
        with pq.ParquetFile(file) as parquet:
            return parquet.read_row_group(group, columns=columns, use_threads=False)

    return _reading(file, read)


def _reading(file: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{file}: not readable: {reason}. Prepare the dataset again.") from error
