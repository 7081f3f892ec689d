"""A split that memory doesn't hold: it is read anew each epoch, and mixed in a buffer. Reading needs no Ray."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fer_ray.console.text import describe_bytes
from fer_ray.dataset.row_groups import (
    AHEAD,
    READERS,
    RowBlock,
    RowGroupSlice,
    deal,
    mixed,
    pieces_of,
    read_ahead,
    read_labels,
    read_piece,
)
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError

_READING = 32
"""Bytes that a reader takes for each pixel that it reads, as measured: Arrow holds levels beside them."""
_FIRST_GROUPS = 64
"""Row groups in the buffer before the first batch is drawn. From then on two rows come in for each that leaves until it
is full, so that an epoch starts at once."""


@dataclass(frozen=True)
class StreamedSplit:
    """One worker's share of the labelled rows of a split, read from Parquet whenever it is gone through.

    Attributes:
        dataset: the prepared dataset.
        split: name of the split.
        rank: of this worker, from 0.
        workers: that share the split; together they have each row once.
        memory: bytes that buffers and reading may take.
    """

    dataset: PreparedDataset
    split: str
    rank: int
    workers: int
    memory: int

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    @cached_property
    def label_sums(self) -> np.ndarray:
        """Rows of each class, float64, K, csv order."""
        sums = np.zeros(NUM_CLASSES)
        for labels in read_ahead(read_labels, self._pieces):
            sums += np.bincount(labels, minlength=NUM_CLASSES)
        return sums

    @cached_property
    def share_sums(self) -> np.ndarray | None:
        """Sums of the shares of votes, float64, K, csv order; None where the dataset has none."""
        if not self.dataset.info.soft_labels:
            return None
        sums = np.zeros(NUM_CLASSES)
        for block in read_ahead(self._read, self._pieces):
            assert block.soft_labels is not None, "the dataset has soft labels"
            sums += block.soft_labels.sum(0, dtype=np.float64)
        return sums

    def capacity(self, batch: int) -> int:
        """Return the rows that the buffer holds where ``batch`` are drawn from it at once.

        Raises:
            UsageError: ``memory`` is too small to mix rows in.
            DataError: a file can't be read.
        """
        reading, mixing = self.needed(batch)
        if self.memory < reading + mixing:
            raise UsageError(
                f"{describe_bytes(self.memory)} of memory for the rows of {self.split}: reading takes"
                f" {describe_bytes(reading)}, and {describe_bytes(mixing)} are the least to mix rows in."
            )
        return min((self.memory - reading) // self.dataset.info.row_bytes, len(self))

    def needed(self, batch: int) -> tuple[int, int]:
        """Return the bytes that reading takes where ``batch`` rows are drawn at once, and the least to mix rows in.

        Raises:
            DataError: a file can't be read.
        """
        row = self.dataset.info.row_bytes
        reading = (READERS * _READING + AHEAD + 1) * self._largest * row + 2 * batch * row
        return reading, min(4 * batch, len(self)) * row

    def shuffled(self, seed: int, batches: int) -> Iterator[RowBlock]:
        """Yield each row once, in an order that seed, rank and workers decide.

        A batch is drawn at random from a buffer, as large as ``memory`` allows, into which the row groups of a random
        order (``mixed``) flow; threads read ahead of it.

        Args:
            seed: 0 or more.
            batches: how many to yield, of equal size but for one row.

        Raises:
            UsageError: ``memory`` is too small to mix rows in.
            DataError: a file can't be read.
        """
        random = np.random.default_rng([seed, self.rank, self.workers])
        sizes = [len(part) for part in np.array_split(np.empty(len(self), bool), batches)]
        capacity = self.capacity(max(sizes))
        first_fill = min(capacity, max(_FIRST_GROUPS * self._largest, 2 * max(sizes)))
        order = mixed(self._pieces, max(1, first_fill // self._largest), random)
        with closing(read_ahead(self._read, order)) as blocks:
            buffer = _Buffer(self._empty(capacity), _Queue(blocks))
            buffer.take_in(first_fill)
            for size in sizes:
                yield buffer.draw(random.choice(buffer.held, size, replace=False))
                buffer.take_in(2 * size)

    def in_order(self, batch_size: int) -> Iterator[RowBlock]:
        """Yield each row once, always in the same order.

        Raises:
            DataError: a file can't be read.
        """
        with closing(read_ahead(self._read, self._pieces)) as blocks:
            queue = _Queue(blocks)
            for start in range(0, len(self), batch_size):
                batch = self._empty(min(batch_size, len(self) - start))
                queue.take(batch)
                yield batch

    @cached_property
    def _pieces(self) -> list[RowGroupSlice]:
        return deal(pieces_of(self.dataset, self.split), self.rank, self.workers)

    @cached_property
    def _largest(self) -> int:
        return max(map(len, self._pieces), default=1)

    def _read(self, piece: RowGroupSlice) -> RowBlock:
        return read_piece(piece, self.dataset.info.size, self.dataset.info.soft_labels)

    def _empty(self, rows: int) -> RowBlock:
        """Return a block to be filled."""
        size, soft = self.dataset.info.size, self.dataset.info.soft_labels
        shares = np.empty((rows, NUM_CLASSES), np.float32) if soft else None
        return RowBlock(np.empty((rows, size, size), np.uint8), np.empty(rows, np.int64), shares)


class _Queue:
    """Rows in the order in which blocks bring them."""

    def __init__(self, blocks: Iterator[RowBlock]):
        self._blocks = blocks
        self._block: RowBlock | None = None
        self._used = 0

    def take(self, rows: RowBlock) -> int:
        """Fill ``rows`` from its start, and return how many rows there were for it."""
        filled = 0
        while filled < len(rows):
            if self._block is None or self._used == len(self._block):
                self._block, self._used = next(self._blocks, None), 0
                if self._block is None:
                    break
            count = min(len(rows) - filled, len(self._block) - self._used)
            rows.put(slice(filled, filled + count), self._block.part(slice(self._used, self._used + count)))
            filled, self._used = filled + count, self._used + count
        return filled


class _Buffer:
    """Rows from a queue, to be drawn in any order.

    Attributes:
        held: rows in it.
    """

    def __init__(self, rows: RowBlock, queue: _Queue):
        self._rows, self._queue, self.held = rows, queue, 0

    def take_in(self, count: int) -> None:
        """Take rows from the queue, as many as there is room for and as it has."""
        stop = min(self.held + count, len(self._rows))
        self.held += self._queue.take(self._rows.part(slice(self.held, stop)))

    def draw(self, numbers: np.ndarray) -> RowBlock:
        """Take some rows out, by numbers below ``held``."""
        drawn = self._rows.part(numbers)
        self.held -= len(numbers)
        # The last rows move to where there are gaps now.
        gaps = numbers[numbers < self.held]
        last = np.setdiff1d(np.arange(self.held, self.held + len(numbers)), numbers, assume_unique=True)
        self._rows.put(gaps, self._rows.part(last))
        return drawn
