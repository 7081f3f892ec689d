"""A worker's share of a split as batches on the training device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch

from fer_ray.dataset.row_groups import RowBlock
from fer_ray.dataset.store import DatasetInfo, PreparedDataset, Split
from fer_ray.dataset.stream import StreamedSplit
from fer_ray.emotions import NUM_CLASSES


@dataclass(frozen=True)
class TrainingData:
    """The rows that this worker trains and validates on, and what the whole dataset is.

    Attributes:
        train: this worker's share of the training split, in memory or streamed from disk.
        validation: this worker's share of the validation split, likewise.
        info: of the whole dataset.
    """

    train: Split | StreamedSplit
    validation: Split | StreamedSplit
    info: DatasetInfo

    @classmethod
    def load(cls, dataset: PreparedDataset) -> Self:
        """Read all rows into memory, for a single worker."""
        return cls(dataset.load("train"), dataset.load("validation"), dataset.info)


@dataclass(frozen=True)
class Batch:
    """B rows on the training device.

    Attributes:
        images: uint8, B × H × W, 0 black to 255 white.
        labels: int64, B, csv order.
        shares: float32, B × K, shares of votes, csv order; None where the dataset has none.
    """

    images: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor | None


class TrainingRows(Protocol):
    """A worker's share of a split.

    Attributes:
        label_sums: float64, K; rows of each class.
        share_sums: float64, K; sums of the shares of votes, None where the dataset has none.
    """

    label_sums: np.ndarray
    share_sums: np.ndarray | None

    def __len__(self) -> int: ...

    def shuffled(self, generator: torch.Generator, batches: int) -> Iterator[Batch]:
        """Yield every row once, in an order that the generator, on the device, decides.

        Args:
            generator: drawn from before the first batch only.
            batches: how many, of nearly equal size: no tiny last one, and as many on every worker.
        """

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield every row once, always in the same order."""


def rows_on(split: Split | StreamedSplit, device: torch.device) -> TrainingRows:
    """Return a split's rows as batches on a device."""
    return StreamedRows(split, device) if isinstance(split, StreamedSplit) else HeldRows(split, device)


class HeldRows:
    """Rows that the device's memory holds."""

    def __init__(self, split: Split, device: torch.device):
        self._images, self._labels = _tensor(split.images, device), _tensor(split.labels, device)
        self._shares = None if split.soft_labels is None else _tensor(split.soft_labels, device)
        self.label_sums = np.bincount(split.labels, minlength=NUM_CLASSES).astype(np.float64)
        self.share_sums = None if split.soft_labels is None else split.soft_labels.sum(0, dtype=np.float64)

    def __len__(self) -> int:
        return len(self._labels)

    def shuffled(self, generator: torch.Generator, batches: int) -> Iterator[Batch]:
        """As ``TrainingRows.shuffled``."""
        order = torch.randperm(len(self), generator=generator, device=self._labels.device)
        return (self._take(rows) for rows in order.tensor_split(batches))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """As ``TrainingRows.in_order``."""
        return (self._take(slice(start, start + batch_size)) for start in range(0, len(self), batch_size))

    def _take(self, rows: torch.Tensor | slice) -> Batch:
        return Batch(self._images[rows], self._labels[rows], None if self._shares is None else self._shares[rows])


class StreamedRows:
    """Rows that are read from disk whenever they are gone through."""

    def __init__(self, split: StreamedSplit, device: torch.device):
        self._split, self._device = split, device
        self.label_sums, self.share_sums = split.label_sums, split.share_sums

    def __len__(self) -> int:
        return len(self._split)

    def shuffled(self, generator: torch.Generator, batches: int) -> Iterator[Batch]:
        """As ``TrainingRows.shuffled``."""
        seed = torch.randint(2**62, (), generator=generator, device=self._device).item()
        return map(self._batch, self._split.shuffled(int(seed), batches))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """As ``TrainingRows.in_order``."""
        return map(self._batch, self._split.in_order(batch_size))

    def _batch(self, block: RowBlock) -> Batch:
        shares = None if block.soft_labels is None else _tensor(block.soft_labels, self._device)
        return Batch(_tensor(block.images, self._device), _tensor(block.labels, self._device), shares)


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array on a device, without a copy on the CPU where that may be written to."""
    # What comes from Ray's object store is read-only, which a tensor can't be.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
