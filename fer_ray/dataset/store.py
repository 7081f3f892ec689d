"""A prepared dataset on disk: ``dataset.json`` and a folder of Parquet files for each split. Reading needs no Ray.

Columns of every split, its rows in source order:

=====================  ============================  =============================================================
``id``                 string                        unique in the dataset (path in the source, or row)
``label``              int8, null where unlabelled   0 to 6 in csv order (``fer_ray.emotions.EMOTIONS``)
``pixels``             fixed_size_list<uint8>        the grey image, rows first, ``size * size`` values
``width``              int32                         of the image before resizing, in pixels
``height``             int32                         likewise
``duplicate_of``       string, null                  id of the first row with the same pixels, in the order train,
                                                     validation, test
``near_duplicate_of``  string, null                  id of the first near-duplicate, in that order; all null without
                                                     ``--near-duplicates``
``flags``              list<string>                  ``flat``: one colour; ``leaked``: a validation or test image that
                                                     is also in train; ``conflict``: another row has the same pixels
                                                     and another label; ``near_duplicate``: a near-duplicate, not a
                                                     copy, of an earlier row; ``near_leaked``: a validation or test
                                                     image that is a near-duplicate, not a copy, of one in train
``soft_label``         fixed_size_list<float>, null  only with ``--fer-plus-labels soft``: the share of votes for
                                                     each emotion, csv order, sum 1
=====================  ============================  =============================================================

``fer_ray.dataset.near_duplicates`` defines near-duplicates.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from fer_ray.console.progress import say
from fer_ray.dataset import DATASET_FILE as DATASET_FILE
from fer_ray.dataset import PREPARE, require_dataset
from fer_ray.dataset.columns import images_of, labels_of, soft_labels_of
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.errors import DataError, UsageError
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.json_files import read_json
from fer_ray.storage.object_store import absolute

FORMAT_VERSION = 1


class SplitInfo(BaseModel):
    """The contents of a split."""

    model_config = ConfigDict(extra="forbid")

    rows: int
    labels: dict[str, int] = Field(description="Labelled rows by emotion, csv order.")
    unlabelled: int = 0
    duplicates: int = Field(0, description="Rows whose pixels are in an earlier row.")
    leaked: int = Field(0, description="Rows of validation or test whose pixels are also in train.")
    conflicts: int = Field(0, description="Rows whose pixels have another label in another row.")
    flat: int = Field(0, description="Rows of one flat colour.")
    near_duplicates: int | None = Field(
        None, description="Near-duplicates, not copies, of an earlier row; null if not looked for."
    )
    near_leaked: int | None = Field(
        None, description="Near-duplicates in validation or test, not copies, of a row in train; null likewise."
    )


class DatasetInfo(BaseModel):
    """The contents of ``dataset.json``."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    fer_ray_version: str
    source: str = Field(description="The path or URL of the images, or the synthetic recipe.")
    source_format: str
    size: int = Field(description="Side of the square images, in pixels.")
    label_names: list[str] = list(EMOTIONS)
    splits: dict[str, SplitInfo]
    mean: float = Field(description="Mean of the training pixels, 0 to 1.")
    std: float = Field(description="Standard deviation of the training pixels, 0 to 1.")
    rejected: int = Field(0, description="Rows or files in rejects.parquet.")
    dropped_leaks: int = Field(0, description="Of these, training rows left out by --drop-leaks.")
    soft_labels: bool = Field(False, description="Whether rows have shares of FER+ votes in ``soft_label``.")
    fingerprint: str = Field(description="SHA-256 over ids, labels, soft labels and pixels of all splits.")
    notes: list[str] = Field(default=[], description="What a reader of the figures must know.")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory: its pixels, about 128 for label, id and flags, and its shares of votes."""
        return self.size**2 + 128 + (4 * NUM_CLASSES if self.soft_labels else 0)

    @property
    def training_columns(self) -> list[str]:
        """The columns that ``to_split`` needs."""
        return ["id", "label", "pixels", "flags", *(["soft_label"] if self.soft_labels else [])]


@dataclass(frozen=True)
class Split:
    """A split in memory, without its unlabelled rows.

    Attributes:
        ids: n ids.
        images: uint8, n × size × size, 0 black to 255 white.
        labels: int64, n, csv order.
        leaked: bool, n, whether the image is also in train.
        soft_labels: float32, n × 7, shares of votes, csv order; None where the dataset has none.
    """

    ids: list[str]
    images: np.ndarray
    labels: np.ndarray
    leaked: np.ndarray
    soft_labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def share(self, rank: int, workers: int) -> "Split":
        """Return every ``workers``-th row from row ``rank`` on, so that the ranks together have each row once."""
        return self.take(np.arange(rank, len(self), workers))

    def take(self, rows: np.ndarray) -> "Split":
        """Return the rows with the given numbers, in their order."""
        soft = None if self.soft_labels is None else self.soft_labels[rows]
        return Split([self.ids[row] for row in rows], self.images[rows], self.labels[rows], self.leaked[rows], soft)


def schema(size: int, soft_labels: bool = False) -> pa.Schema:
    """Return the Arrow schema of a split's Parquet files for images of ``size`` × ``size`` pixels."""
    soft = [("soft_label", pa.list_(pa.float32(), NUM_CLASSES))] if soft_labels else []
    return pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.int8()),
            ("pixels", pa.list_(pa.uint8(), size * size)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("duplicate_of", pa.string()),
            ("near_duplicate_of", pa.string()),
            ("flags", pa.list_(pa.string())),
            *soft,
        ]
    )


class PreparedDataset:
    """A folder that ``prepare`` wrote, by path or URL; each machine reads its own copy of a URL.

    Attributes:
        path_or_url: the path or URL.
        path: of the folder on this machine.

    Raises:
        DataError: the folder is missing, isn't a prepared dataset, or has another format version.
    """

    def __init__(self, path_or_url: Path | str):
        self.path, self.path_or_url = local_copy(path_or_url), absolute(path_or_url).rstrip("/")
        require_dataset(self.path, self.path_or_url)
        self.info = read_json(DatasetInfo, self.path / DATASET_FILE, PREPARE, f"{self.path_or_url}/{DATASET_FILE}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"path": local_copy(state["path_or_url"])})

    def files(self, split: str) -> list[Path]:
        """Return the Parquet files of a split, in order.

        Raises:
            UsageError: the dataset has no such split.
        """
        if split not in self.info.splits:
            has = ", ".join(name for name in SPLITS if name in self.info.splits)
            raise UsageError(f"split '{split}': not in {self.path_or_url}, which has {has}. Choose one of these.")
        return sorted((self.path / split).glob("*.parquet"))

    def labelled(self, split: str) -> int:
        """Return the number of labelled rows of a split."""
        return sum(self.info.splits[split].labels.values())

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Read a split, or some of its columns, as an Arrow table."""
        try:
            tables = [pq.read_table(file, columns=columns) for file in self.files(split)]
        except (OSError, pa.ArrowInvalid) as error:
            raise self._unreadable(split, error) from error
        rows = sum(len(table) for table in tables)
        expected = self.info.splits[split].rows
        if rows != expected:
            raise DataError(
                f"{self.path_or_url}/{split}: holds {rows} rows, {DATASET_FILE} says {expected}. Prepare the dataset"
                " again."
            )
        return pa.concat_tables(tables)

    def check_trainable(self) -> None:
        """Check that a network can be trained and validated on the labelled rows; print the labels without a row.

        Raises:
            DataError: train or validation has no labelled row, train has a single label, or a file has other columns
                than ``schema``.
        """
        remedies = {
            "train": "Prepare a source with labelled training images.",
            "validation": "Prepare it with --validation-fraction above 0.",
        }
        held = self.info.splits
        missing = [split for split in remedies if split not in held or not any(held[split].labels.values())]
        if missing:
            raise DataError(
                [f"{self.path_or_url}: no labelled image in a {split} split. {remedies[split]}" for split in missing]
            )
        absent = [name for name, count in held["train"].labels.items() if not count]
        if len(absent) == NUM_CLASSES - 1:
            (only,) = set(EMOTIONS) - set(absent)
            raise DataError(
                f"{self.path_or_url}: all labelled images of train are {only}, and training needs at least two."
                " Prepare a source with more labels."
            )
        if absent:
            say(f"train has no image of {', '.join(absent)}, so the network will never predict it.")
        for split in remedies:
            self._check_columns(split)

    def _check_columns(self, split: str) -> None:
        """Check that each file of a split has the columns for training, of the right types."""
        expected, problems = schema(self.info.size, self.info.soft_labels), list[str]()
        for file in self.files(split):
            try:
                found = pq.read_schema(file)
            except (OSError, pa.ArrowInvalid) as error:
                raise self._unreadable(split, error) from error
            path_or_url = f"{self.path_or_url}/{split}/{file.name}"
            for name in self.info.training_columns:
                if name not in found.names:
                    problems.append(f"{path_or_url}: has no column '{name}'. Prepare the dataset again.")
                elif found.field(name).type != expected.field(name).type:
                    problems.append(
                        f"{path_or_url}: column '{name}' is {found.field(name).type}, {expected.field(name).type}"
                        " expected. Prepare the dataset again."
                    )
        if problems:
            raise DataError(problems)

    def load(self, split: str) -> Split:
        """Read the labelled rows of a split into memory, a row group at a time to save memory.

        Raises:
            DataError: a file can't be read, or has other rows or columns than ``dataset.json`` says.
        """
        self._check_columns(split)
        size, rows, parts = self.info.size, 0, list[Split]()
        images = np.empty((self.labelled(split), size, size), np.uint8)
        try:
            for file in self.files(split):
                with pq.ParquetFile(file) as groups:
                    for group in range(groups.num_row_groups):
                        part = to_split(groups.read_row_group(group, columns=self.info.training_columns), size)
                        own = images[rows : rows + len(part)]
                        own[:] = part.images[: len(own)]
                        parts.append(dataclasses.replace(part, images=own))
                        rows += len(part)
        except (OSError, pa.ArrowInvalid) as error:
            raise self._unreadable(split, error) from error
        if rows != len(images):
            raise DataError(
                f"{self.path_or_url}/{split}: holds {rows} labelled rows, {DATASET_FILE} says {len(images)}. Prepare"
                " the dataset again."
            )
        soft = [part.soft_labels for part in parts if part.soft_labels is not None]
        return Split(
            ids=[id for part in parts for id in part.ids],
            images=images,
            labels=np.concatenate([np.empty(0, np.int64), *(part.labels for part in parts)]),
            leaked=np.concatenate([np.empty(0, bool), *(part.leaked for part in parts)]),
            soft_labels=np.concatenate(soft) if soft else None,
        )

    def _unreadable(self, split: str, error: Exception) -> DataError:
        reason = " ".join(str(error).split()).rstrip(".")
        return DataError(f"{self.path_or_url}/{split}: can't be read: {reason}. Prepare the dataset again.")


def to_split(table: pa.Table, size: int) -> Split:
    """Return rows with ``DatasetInfo.training_columns`` as arrays, without the unlabelled rows."""
    table = table.filter(pc.is_valid(table["label"]))
    leaked = ["leaked" in flags for flags in table["flags"].to_pylist()]
    return Split(
        ids=table["id"].to_pylist(),
        images=images_of(table["pixels"], size),
        labels=labels_of(table),
        leaked=np.array(leaked, dtype=bool),
        soft_labels=soft_labels_of(table) if "soft_label" in table.column_names else None,
    )
