"""Shard a prepared dataset over Ray Train workers that hold their rows in memory."""

import functools
from typing import Any

import pyarrow as pa
import ray

from fer_ray.dataset.store import PreparedDataset, Split, images_of, to_split
from fer_ray.errors import DataError

READ_CPUS = 0.1  # CPUs of a task that reads training rows. Workers must leave as much free, or the task never starts
_TASK_GROUPS = 8


def train_dataset(dataset: PreparedDataset, workers: int) -> ray.data.Dataset:
    """Return the training split as a Ray Dataset in random order, to be split over the workers.

    Ray Data gives every worker the same number of rows. The remainder of dividing the rows by ``workers`` is left out
    here; ``drain`` adds it.

    Rows are shuffled because sources are often sorted by label, and a worker with only some of the labels would learn
    other batch-norm statistics. Small tasks read a few Parquet row groups each. ``ray.data.read_parquet`` would list
    the files in a task of a whole CPU, which busy workers don't leave free.
    """
    groups = _row_groups(dataset)
    left = dataset.labelled("train") % workers
    for group in reversed(groups):
        cut = min(left, group["rows"])
        group["rows"] -= cut
        left -= cut
    items = ray.data.from_items(groups, override_num_blocks=-(-len(groups) // _TASK_GROUPS))
    read = functools.partial(_read_groups, dataset=dataset)
    tables = items.map_batches(read, batch_size=_TASK_GROUPS, num_cpus=READ_CPUS)
    return tables.random_shuffle(seed=0, num_cpus=READ_CPUS)


def drain(shard: Any, dataset: PreparedDataset, rank: int, workers: int) -> Split:
    """Read a worker's shard, from ``ray.train.get_dataset_shard``, into memory, in the order of ids.

    The first workers also take one row each of the remainder. ``DataError`` if the files changed since the sharding.
    """
    rows = dataset.labelled("train")
    tables = list(shard.iter_batches(batch_size=4096, batch_format="pyarrow"))
    if rank < rows % workers:
        tables.append(_last_rows(dataset, rows % workers).slice(rank, 1))
    table = pa.concat_tables(tables).sort_by("id")
    expected = rows // workers + (rank < rows % workers)
    if len(table) != expected:
        raise DataError(
            f"{dataset.path_or_url}: worker {rank} got {len(table):,} training rows, {expected:,} expected. The dataset"
            " changed while it was read: start again."
        )
    return to_split(table, images_of(table["pixels"], dataset.info.size))


def _row_groups(dataset: PreparedDataset) -> list[dict[str, Any]]:
    return [
        {"file": str(file.relative_to(dataset.path)), "group": group, "rows": rows}
        for file, group, rows in dataset.row_groups("train")
    ]


def _read_groups(batch: Any, dataset: PreparedDataset) -> pa.Table:
    groups = zip(batch["file"], batch["group"], batch["rows"], strict=True)
    return pa.concat_tables([_read_group(dataset, file, group).slice(0, int(rows)) for file, group, rows in groups])


def _read_group(dataset: PreparedDataset, file: str, group: int) -> pa.Table:
    return dataset.read_group(dataset.path / file, int(group), dataset.info.training_columns)


def _last_rows(dataset: PreparedDataset, count: int) -> pa.Table:
    tables = list[pa.Table]()
    for group in reversed(_row_groups(dataset)):
        if sum(map(len, tables)) < count:
            tables.insert(0, _read_group(dataset, group["file"], group["group"]))
    table = pa.concat_tables(tables)
    return table.slice(len(table) - count)
