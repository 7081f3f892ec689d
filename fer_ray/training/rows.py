"""A worker's rows: in memory, or memory-mapped from a file; taken in batches on the training device."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from fer_ray.console.text import describe_bytes
from fer_ray.dataset.store import DatasetInfo, PreparedDataset, Split

_READERS = 4  # batches that are read at once from a file


@dataclass(frozen=True)
class TrainingData:
    """This worker's shares of the training and validation splits, and the description of the whole dataset."""

    train: Split
    validation: Split
    info: DatasetInfo

    @classmethod
    def load(cls, dataset: PreparedDataset, in_memory: Collection[str] = ("train", "validation")) -> Self:
        """Read all rows for a single worker; map the splits that aren't named in ``in_memory``."""
        train, validation = (dataset.load(split, mapped=split not in in_memory) for split in ("train", "validation"))
        return cls(train, validation, dataset.info)


def fitting_splits(dataset: PreparedDataset, memory: int, workers: int = 1) -> tuple[list[str], str]:
    """Return the splits that each worker holds in ``memory`` bytes, validation first, and a line on why for users."""
    fitting, parts, left = list[str](), list[str](), memory
    each = " a worker" if workers > 1 else ""
    for split in ("validation", "train"):
        rows = -(-dataset.labelled(split) // workers)
        size = rows * dataset.info.row_bytes
        if fits := size <= left:
            fitting.append(split)
            left -= size
        where = "in memory" if fits else "memory-mapped from disk"
        parts.insert(0, f"{split} {rows:,} rows × {dataset.info.row_bytes:,} bytes = {describe_bytes(size)}, {where}")
    limit = f"limit {describe_bytes(memory)}{each}, half of the available memory"
    return fitting, f"Data{each}: {'; '.join(parts)}; {limit}."


@dataclass(frozen=True)
class Batch:
    """B rows on the training device."""

    images: torch.Tensor  # uint8, B × H × W, 0 black to 255 white
    labels: torch.Tensor  # int64, B, csv order
    shares: torch.Tensor | None  # float32, B × K, shares of votes, csv order; None if the dataset has none


class TrainingRows:
    """A worker's share of a split as batches. A GPU holds all images if they fit in half of its free memory."""

    def __init__(self, split: Split, device: torch.device):
        self._device, self._is_mapped = device, split.is_mapped
        fits = device.type != "cuda" or split.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2
        self._images = _tensor(split.images).to(device if fits else "cpu")
        self._labels = _tensor(split.labels).to(device)
        self._shares = None if split.soft_labels is None else _tensor(split.soft_labels).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def shuffled(self, generator: torch.Generator, batches: int) -> Iterator[Batch]:
        """Yield every row once, in random order, in so many batches, whose sizes differ by one row at most.

        The generator is on the device, and drawn from before the first batch only.
        """
        order = torch.randperm(len(self), generator=generator, device=self._device)
        return self._batches(order.tensor_split(batches))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield every row once, always in the same order."""
        return self._batches(slice(start, start + batch_size) for start in range(0, len(self), batch_size))

    def _batches(self, parts: Iterable[torch.Tensor | slice]) -> Iterator[Batch]:
        return self._read_ahead(parts) if self._is_mapped else map(self._take, parts)

    def _take(self, rows: torch.Tensor | slice) -> Batch:
        images = self._images[rows.to(self._images.device) if isinstance(rows, torch.Tensor) else rows]
        if self._is_mapped:
            images = images.clone()  # a slice would be read from the disk later, in the thread that trains
        shares = None if self._shares is None else self._shares[rows]
        return Batch(images.to(self._device), self._labels[rows], shares)

    def _read_ahead(self, parts: Iterable[torch.Tensor | slice]) -> Iterator[Batch]:
        """Take the next batches in threads, because each row may wait for the disk."""
        with ThreadPoolExecutor(_READERS, "read-rows") as pool:
            waiting = deque[Future[Batch]]()
            for rows in parts:
                waiting.append(pool.submit(self._take, rows))
                if len(waiting) > _READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _tensor(array: np.ndarray) -> torch.Tensor:
    # What comes from Ray's object store is read-only, which a tensor can't be.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
