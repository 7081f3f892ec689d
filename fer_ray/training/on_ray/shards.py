"""Shard a prepared dataset over Ray Train workers that hold their rows in memory."""

import dataclasses
import functools
from typing import Any

import pyarrow as pa
import ray

from fer_ray.dataset.row_groups import RowGroupSlice, between, pieces_of, table_of
from fer_ray.dataset.store import PreparedDataset, Split, to_split
from fer_ray.errors import DataError

READ_CPUS = 0.1
"""CPUs of a task that reads training rows. Workers must leave as much free, or the task never starts."""
_TASK_PIECES = 8


def train_dataset(dataset: PreparedDataset, workers: int) -> ray.data.Dataset:
    """Return the training split as a Ray Dataset in random order, to be split over the workers.

    Ray Data gives every worker the same number of rows. The remainder of dividing the rows by ``workers`` is left out
    here; ``drain`` adds it.

    Rows are shuffled because sources are often sorted by label, and a worker with only some of the labels would learn
    other batch-norm statistics. Small tasks read a few Parquet row groups each. ``ray.data.read_parquet`` would list
    the files in a task of a whole CPU, which busy workers don't leave free.
    """
    rows = dataset.labelled("train")
    pieces = between(pieces_of(dataset, "train"), 0, rows - rows % workers)
    items = ray.data.from_items(
        [dataclasses.asdict(piece) | {"file": str(piece.file.relative_to(dataset.path))} for piece in pieces],
        override_num_blocks=-(-len(pieces) // _TASK_PIECES),
    )
    read = functools.partial(_read, dataset=dataset)
    tables = items.map_batches(read, batch_size=_TASK_PIECES, num_cpus=READ_CPUS)
    return tables.random_shuffle(seed=0, num_cpus=READ_CPUS)


def _read(batch: Any, dataset: PreparedDataset) -> pa.Table:
    rows = zip(batch["file"], batch["group"], batch["start"], batch["stop"], strict=True)
    pieces = [RowGroupSlice(dataset.path / file, *map(int, numbers)) for file, *numbers in rows]
    return pa.concat_tables([table_of(piece, dataset.info.training_columns) for piece in pieces])


def drain(shard: Any, dataset: PreparedDataset, rank: int, workers: int) -> Split:
    """Read a worker's shard of the training rows into memory, in the order of ids.

    Args:
        shard: from ``ray.train.get_dataset_shard``; it is read once.
        dataset: the dataset that ``train_dataset`` got.
        rank: the worker's rank, from 0. The first workers also take one row each of the remainder.
        workers: number of workers.

    Raises:
        DataError: the files changed after the shards were made.
    """
    rows = dataset.labelled("train")
    tables = list(shard.iter_batches(batch_size=4096, batch_format="pyarrow"))
    last = rows - rows % workers + rank
    own = between(pieces_of(dataset, "train"), last, min(last + 1, rows))
    tables += [table_of(piece, dataset.info.training_columns) for piece in own]
    split = to_split(pa.concat_tables(tables).sort_by("id"), dataset.info.size)
    expected = rows // workers + len(own)
    if len(split) != expected:
        raise DataError(
            f"{dataset.path}: worker {rank} got {len(split):,} training rows, {expected:,} expected. The dataset"
            " changed while it was read: start again."
        )
    return split
