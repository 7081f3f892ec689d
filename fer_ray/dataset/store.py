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
``soft_label``         fixed_size_list<float>, null  the share of each emotion, csv order, sum 1: of the votes with
                                                     ``--fer-plus-labels soft``; or by an audit's probabilities
=====================  ============================  =============================================================

``fer_ray.dataset.near_duplicates`` defines near-duplicates.
"""

import dataclasses
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from fer_ray.console.progress import say
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.errors import DataError, UsageError
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import cache_folder, local_copy
from fer_ray.storage.json_files import read_json
from fer_ray.storage.local import DATASET_FILE as DATASET_FILE
from fer_ray.storage.local import PREPARE, require_dataset
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
    left_out: int = Field(0, description="Of these, rows left out by --drop-leaks or --corrections.")
    soft_labels: bool = Field(False, description="Whether rows have a ``soft_label``.")
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
    """A split without its unlabelled rows."""

    ids: list[str]
    images: np.ndarray  # uint8, n × size × size, 0 black to 255 white
    labels: np.ndarray  # int64, n, csv order
    leaked: np.ndarray  # bool, n, whether the image is also in train
    soft_labels: np.ndarray | None = None  # float32, n × 7, shares of votes, csv order; None if the dataset has none
    is_mapped: bool = False  # whether the images are memory-mapped from a file

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
    """A folder that ``prepare`` wrote, by path or URL; each machine reads its own copy of a URL, at ``path``.

    ``DataError`` if the folder is missing, isn't a prepared dataset, or has another format version.
    """

    def __init__(self, path_or_url: Path | str):
        self.path, self.path_or_url = local_copy(path_or_url), absolute(path_or_url).rstrip("/")
        require_dataset(self.path, self.path_or_url)
        self.info = read_json(DatasetInfo, self.path / DATASET_FILE, PREPARE, f"{self.path_or_url}/{DATASET_FILE}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"path": local_copy(state["path_or_url"])})

    def files(self, split: str) -> list[Path]:
        """Return the Parquet files of a split, in order; ``UsageError`` if the dataset has no such split."""
        if split not in self.info.splits:
            has = ", ".join(name for name in SPLITS if name in self.info.splits)
            raise UsageError(f"split '{split}': not in {self.path_or_url}, which has {has}. Choose one of these.")
        return sorted((self.path / split).glob("*.parquet"))

    def labelled(self, split: str) -> int:
        """Return the number of labelled rows of a split."""
        return sum(self.info.splits[split].labels.values())

    def check_trainable(self) -> None:
        """Check that a network can be trained and validated on the labelled rows; print the labels without a row.

        ``DataError`` if train or validation has no labelled row, train has a single label, or a file lacks columns.
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
        columns, problems = schema(self.info.size, self.info.soft_labels), list[str]()
        for file in self.files(split):
            with self._reading(file):
                types = {field.name: field.type for field in pq.read_schema(file)}
            problems += [
                f"{self._name(file)}: column '{name}' is {types.get(name, 'missing')}, {columns.field(name).type}"
                " expected. Prepare the dataset again."
                for name in self.info.training_columns
                if types.get(name) != columns.field(name).type
            ]
        if problems:
            raise DataError(problems)

    def load(self, split: str, mapped: bool = False, rank: int = 0, workers: int = 1) -> Split:
        """Read the labelled rows of a split, or every ``workers``-th of them from row ``rank`` on.

        With ``mapped`` the images are memory-mapped from a file in the cache folder. The file has no name, so the
        system removes it when the process ends or drops the images. ``DataError`` if a file can't be read or has other
        rows or columns than ``dataset.json`` says, ``UsageError`` if the cache folder can't be written.
        """
        self._check_columns(split)
        groups, expected = list(self.row_groups(split)), self.labelled(split)
        if (rows := sum(rows for _, _, rows in groups)) != expected:
            raise DataError(
                f"{self.path_or_url}/{split}: holds {rows} labelled rows, {DATASET_FILE} says {expected}. Prepare the"
                " dataset again."
            )
        tables = list[pa.Table]()
        blocks = self._image_blocks([group[:2] for group in groups], rank, workers, tables)
        shape = (len(range(rank, rows, workers)), self.info.size, self.info.size)
        if mapped:
            images = _mapped(blocks).reshape(shape)
            return dataclasses.replace(to_split(pa.concat_tables(tables), images), is_mapped=True)
        images, filled = np.empty(shape, np.uint8), 0
        for block in blocks:
            images[filled : filled + len(block)] = block
            filled += len(block)
        return to_split(pa.concat_tables(tables), images)

    def row_groups(self, split: str) -> Iterator[tuple[Path, int, int]]:
        """Yield the Parquet row groups of a split: file, number in the file, and number of labelled rows."""
        is_labelled = self.info.splits[split].unlabelled == 0
        for file in self.files(split):
            with self._reading(file):
                metadata = pq.read_metadata(file)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                yield file, group, rows if is_labelled else len(self.read_group(file, group, ["label"]))

    def read_group(self, file: Path, group: int, columns: list[str]) -> pa.Table:
        """Read some columns, ``label`` among them, of the labelled rows of a row group."""
        with self._reading(file), pq.ParquetFile(file) as parquet:
            return _labelled(parquet.read_row_group(group, columns=columns, use_threads=False))

    def _image_blocks(
        self, groups: Sequence[tuple[Path, int]], rank: int, workers: int, tables: list[pa.Table]
    ) -> Iterator[np.ndarray]:
        """Yield the images of a worker's labelled rows, a row group at a time; append the other columns to tables."""
        first = rank
        for file, group in groups:
            held = self.read_group(file, group, self.info.training_columns)
            rows = held.take(np.arange(first, len(held), workers))
            first = (first - len(held)) % workers
            tables.append(rows.drop_columns("pixels"))
            yield images_of(rows["pixels"], self.info.size)

    @contextmanager
    def _reading(self, file: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise DataError(f"{self._name(file)}: can't be read: {reason}. Prepare the dataset again.") from error

    def _name(self, file: Path) -> str:
        return f"{self.path_or_url}/{file.relative_to(self.path)}"


def images_of(pixels: pa.ChunkedArray, size: int) -> np.ndarray:
    """Return a ``pixels`` column, uint8, n × size × size."""
    parts = [chunk.flatten().to_numpy() for chunk in pixels.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size)


def to_split(table: pa.Table, images: np.ndarray) -> Split:
    """Return labelled rows as arrays; ``DataError`` if a label isn't 0 to 6.

    ``table`` has ``DatasetInfo.training_columns``, of which ``pixels`` isn't read; ``images`` are those of its rows.
    """
    labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= NUM_CLASSES)]
    if len(wrong):
        raise DataError(f"label {wrong[0]}: expected 0 to {NUM_CLASSES - 1}. Prepare the dataset again.")
    soft = None
    if "soft_label" in table.column_names:  # a labelled row has votes, so no value is null
        parts = [chunk.flatten().to_numpy() for chunk in table["soft_label"].chunks]
        soft = np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, NUM_CLASSES)
    leaked = np.array(["leaked" in flags for flags in table["flags"].to_pylist()], bool)
    return Split(table["id"].to_pylist(), images, labels, leaked, soft)


def _mapped(blocks: Iterable[np.ndarray]) -> np.ndarray:
    folder = cache_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            memory = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise UsageError(
            f"{folder}: the images can't be written there: {error.strerror}. Set FER_RAY_CACHE to a folder with more"
            " space."
        ) from error
    memory.madvise(mmap.MADV_RANDOM)  # without it each row reads its neighbours too
    return np.frombuffer(memory, np.uint8)


def _labelled(table: pa.Table) -> pa.Table:
    return table.filter(pc.is_valid(table["label"])) if table["label"].null_count else table
