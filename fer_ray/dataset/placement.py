"""Where the rows are while a network trains on them: in memory, or on disk where memory doesn't hold them."""

from dataclasses import dataclass

from fer_ray.console.text import describe_bytes
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.dataset.stream import StreamedSplit
from fer_ray.errors import UsageError


@dataclass(frozen=True)
class Placement:
    """What each of several workers holds of its share of ``train`` and ``validation``.

    Attributes:
        dataset: the prepared dataset.
        workers: that share its rows.
        memory: bytes that the rows of one worker may take.
    """

    dataset: PreparedDataset
    workers: int
    memory: int

    def holds(self, split: str) -> bool:
        """Say whether a split is in memory; else it streams.

        Validation comes first, as long as it leaves train half of the memory for mixing.
        """
        train, validation = self._bytes("train"), self._bytes("validation")
        if split == "train":
            return train + validation <= self.memory
        return validation <= self.memory // 2 or train + validation <= self.memory

    def load(self, split: str, rank: int) -> Split | StreamedSplit:
        """Return a worker's share: all rows of a split that a single worker holds, or what streams a share.

        Args:
            split: ``train`` or ``validation``; what several workers hold is for ``fer_ray.training.on_ray.shards``.
            rank: of the worker, from 0.
        """
        if self.holds(split):
            assert self.workers == 1, "several workers share what they hold through Ray Data"
            return self.dataset.load(split)
        other = self._bytes("validation") if split == "train" and self.holds("validation") else 0
        return StreamedSplit(self.dataset, split, rank, self.workers, self.memory - other)

    def require_room(self, batch: int) -> None:
        """Check that what streams can be mixed in the memory there is.

        Args:
            batch: rows that one worker takes at once.

        Raises:
            UsageError: it is too little.
            DataError: the files can't be read.
        """
        if not self.holds("train"):
            train = self.load("train", 0)
            assert isinstance(train, StreamedSplit)
            reading, mixing = train.needed(batch)
            streaming = self.memory - train.memory + reading + mixing
            holding = self._bytes("train") + self._bytes("validation")
            if streaming > self.memory:
                raise UsageError(
                    f"--data-memory: {describe_bytes(self.memory)}{self._each} is too little. Streaming takes"
                    f" {describe_bytes(streaming)}, of which reading {describe_bytes(reading)}; holding all rows takes"
                    f" {describe_bytes(holding)}. Raise --data-memory to at least"
                    f" {min(streaming, holding):,} bytes{self._each}."
                )

    def __str__(self) -> str:
        parts = [
            f"{split} {self._rows(split):,} rows × {self.dataset.info.row_bytes:,} bytes ="
            f" {describe_bytes(self._bytes(split))}, {'held in memory' if self.holds(split) else 'streamed from disk'}"
            for split in ("train", "validation")
        ]
        return f"Data{self._each}: {'; '.join(parts)}; limit {describe_bytes(self.memory)}{self._each} (--data-memory)."

    @property
    def _each(self) -> str:
        return " a worker" if self.workers > 1 else ""

    def _rows(self, split: str) -> int:
        return -(-self.dataset.labelled(split) // self.workers)

    def _bytes(self, split: str) -> int:
        return self._rows(split) * self.dataset.info.row_bytes
