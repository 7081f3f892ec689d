"""Split a prepared dataset over Ray Train workers."""

from typing import Any

import numpy as np
import pyarrow as pa
import ray

from fer_ray.data.store import PreparedDataset, Split, to_split

READ_CPUS = 0.1
"""CPUs that a task asks for that reads training rows; workers must leave as much free, or it waits for ever."""

COLUMNS = ["id", "label", "pixels", "flags"]


def train_dataset(dataset: PreparedDataset) -> ray.data.Dataset:
    """Return the training split as a Ray Dataset, to be split over the workers."""
    return ray.data.read_parquet([str(file) for file in dataset.files("train")], columns=COLUMNS, num_cpus=READ_CPUS)


def drain(shard: Any, size: int) -> Split:
    """Take a worker's shard (``ray.train.get_dataset_shard``) once into memory, in the order of ids.

    Ray Data gives every worker the same number of rows: of a split that the workers don't divide, the last few rows
    (fewer than there are workers) are left out.
    """
    tables = list(shard.iter_batches(batch_size=4096, batch_format="pyarrow"))
    return to_split(pa.concat_tables(tables).sort_by("id"), size)


def validation_shard(dataset: PreparedDataset, rank: int, workers: int) -> Split:
    """Return every ``workers``-th validation row from row ``rank`` on: over all ranks, each row exactly once."""
    split = dataset.load("validation")
    rows = np.arange(rank, len(split), workers)
    return Split([split.ids[row] for row in rows], split.images[rows], split.labels[rows], split.leaked[rows])
