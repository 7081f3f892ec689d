"""Split a prepared dataset over Ray Train workers."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from fer_ray.data.store import PreparedDataset, Split, to_split

READ_CPUS = 0.1
"""CPUs that a task asks for that reads training rows; workers must leave as much free, or it waits for ever."""


def train_dataset(dataset: PreparedDataset) -> ray.data.Dataset:
    """Return the training split as a Ray Dataset in random order, to be split over the workers.

    The order of a source is often that of its labels, and a worker that met only some of them would learn statistics
    of its own. Each Parquet row group is read by one small task; ``ray.data.read_parquet`` would list the files in a
    task of a whole CPU, which busy workers don't leave.
    """
    groups = [
        {"file": str(file), "group": group}
        for file in dataset.files("train")
        for group in range(pq.read_metadata(file).num_row_groups)
    ]
    items = ray.data.from_items(groups, override_num_blocks=len(groups))
    read_group = functools.partial(_read_group, dataset.info.learning_columns)
    rows = items.map_batches(read_group, batch_size=1, num_cpus=READ_CPUS)
    return rows.random_shuffle(seed=0, num_cpus=READ_CPUS)


def _read_group(columns: list[str], batch: Any) -> Any:
    with pq.ParquetFile(batch["file"][0]) as file:
        return file.read_row_group(int(batch["group"][0]), columns=columns)


def drain(shard: Any, size: int) -> Split:
    """Take a worker's shard (``ray.train.get_dataset_shard``) once into memory, in the order of ids.

    Ray Data gives every worker the same number of rows: of a split that the workers don't divide, the last few rows
    (fewer than there are workers) are left out.
    """
    tables = list(shard.iter_batches(batch_size=4096, batch_format="pyarrow"))
    return to_split(pa.concat_tables(tables).sort_by("id"), size)


def validation_shard(dataset: PreparedDataset, rank: int, workers: int) -> Split:
    """Return every ``workers``-th validation row from row ``rank`` on: over all ranks, each row exactly once.

    Without soft labels, as validation goes by labels.
    """
    split = dataset.load("validation")
    rows = np.arange(rank, len(split), workers)
    return Split([split.ids[row] for row in rows], split.images[rows], split.labels[rows], split.leaked[rows])
