"""From raw rows to a dataset: collecting them with their pixels on disk, and giving each its split and label.

The pixels are in a file beside the dataset, so memory holds only some hundred bytes a row, most of them names.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fer_ray.dataset.store import images_of
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import DataError
from fer_ray.sources.fer_plus import REMEDY, Votes
from fer_ray.sources.label_names import NameOptions, label_meanings
from fer_ray.sources.raw_rows import NO_LABEL, Source, number_rows, raw_schema
from fer_ray.sources.split_names import NO_PATTERNS, SPLITS, split_meanings

DROPPED = -1  # instead of a split
_REJECTED = -2  # likewise
_POSITION = pa.field("position", pa.int64())  # of a row in the source
_REJECTS = ["id", "path", "reason", _POSITION.name]
_CHUNK_BYTES = 16 << 20
_CHUNK_ROWS = 4096  # fewer where images are large


class Spool:
    """Collects raw rows, with the pixels of the usable ones, size × size, in a temporary file. A context manager."""

    def __init__(self, file: Path, size: int):
        self.file, self.size = file, size
        self._good: list[pa.Table] = []
        self._bad: list[pa.Table] = []
        self._added = 0
        self._digests: list[bytes] = []  # of the pixels of the usable rows
        self._flat: list[np.ndarray] = []

    def __enter__(self) -> Self:
        self._out = self.file.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()
        self.file.unlink()

    def add(self, rows: pa.Table) -> None:
        """Append raw rows, with ``raw_schema(size)``."""
        is_bad = pc.is_valid(rows["reason"]).to_numpy()
        good, bad = np.flatnonzero(~is_bad), np.flatnonzero(is_bad)
        images = images_of(rows["pixels"], self.size)
        images = np.ascontiguousarray(images[good] if len(bad) else images)
        self._out.write(images.data)
        self._digests += [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        self._flat.append(images.min((1, 2)) == images.max((1, 2)))
        # The position in the source, because usable rows may become rejects later.
        rows = number_rows(rows, self._added + 1).append_column(
            _POSITION, pa.array(np.arange(self._added, self._added + len(rows)))
        )
        self._added += len(rows)
        # `take` copies the rows, so that Ray's object store can free the block.
        self._good.append(rows.drop_columns(["pixels", "reason"]).take(pa.array(good)))
        self._bad.append(rows.select(_REJECTS).take(pa.array(bad)))

    def rejects(self) -> pa.Table:
        """Return ``id``, ``path`` and ``reason`` of the rejected rows, in source order."""
        names = [raw_schema(self.size).field(name) for name in _REJECTS[:-1]]
        table = pa.concat_tables([pa.schema([*names, _POSITION]).empty_table(), *self._bad])
        return table.sort_by(_POSITION.name).drop_columns(_POSITION.name)

    def rows(self, source: Source, options: NameOptions) -> tuple["SpooledRows", list[str]]:
        """Decide the splits and labels of the usable rows, once all are added.

        Rows with an unknown split or label become rejects.

        Returns:
            The rows, and notes for the user.

        Raises:
            DataError: splits or labels that would make a wrong dataset (``fer_ray.sources.label_names``).
        """
        self._out.flush()
        fields = [field for field in raw_schema(self.size) if field.name not in ("pixels", "reason")]
        table = pa.concat_tables([pa.schema([*fields, _POSITION]).empty_table(), *self._good]).combine_chunks()
        splits, labels, reasons, notes = _meanings(table, source, options)
        if rejected := sorted(reasons):
            why = pa.array([reasons[row] for row in rejected], pa.string())
            self._bad.append(table.take(pa.array(rejected)).append_column("reason", why).select(_REJECTS))
        rows = SpooledRows(
            positions=table[_POSITION.name].to_numpy(),
            ids=table["id"],
            paths=table["path"],
            splits=splits,
            labels=labels,
            sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()]),
            groups=pa.array(self._digests, pa.binary(16)).dictionary_encode().indices.to_numpy(),
            flat=np.concatenate([np.empty(0, bool), *self._flat]),
        )
        return rows, notes

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some usable rows by number, uint8, n × size × size."""
        # A new mapping each time: pages of an old one would count as this process's memory.
        mapped = np.memmap(self.file, np.uint8, "r").reshape(-1, self.size, self.size)
        return np.asarray(mapped[rows])

    def chunks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the numbers and images of some usable rows, a few MB at a time."""
        length = self.chunk_rows()
        for start in range(0, len(rows), length):
            yield rows[start : start + length], self.pixels(rows[start : start + length])

    def chunk_rows(self) -> int:
        """Return the number of rows that are handled at once."""
        return max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // self.size**2))


@dataclass
class SpooledRows:
    """All n usable rows in source order, without their pixels."""

    positions: np.ndarray  # int64, in the source, from 0
    ids: pa.ChunkedArray
    paths: pa.ChunkedArray  # of the row's file, for people
    splits: np.ndarray  # int8, index into ``SPLITS``; negative for a row in no split, ``DROPPED`` for a leak
    labels: np.ndarray  # int8, csv order, ``NO_LABEL`` where unlabelled
    sizes: np.ndarray  # int32, 2 × n, width and height before resizing
    groups: np.ndarray  # int32, equal where the pixels are equal
    flat: np.ndarray  # bool, whether the image has one colour
    soft: np.ndarray | None = None  # float32, n × 7, shares of votes, csv order, NaN without votes; None without FER+

    def __len__(self) -> int:
        return len(self.splits)

    def of_split(self, split: str) -> np.ndarray:
        """Return the numbers of a split's rows, in source order."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def in_order(self) -> np.ndarray:
        """Return the numbers of all rows in splits: those of train, then validation, then test."""
        return np.concatenate([self.of_split(split) for split in SPLITS])


def _meanings(
    table: pa.Table, source: Source, options: NameOptions
) -> tuple[np.ndarray, np.ndarray, dict[int, str], list[str]]:
    """Return each row's index into ``SPLITS`` and label, int8; by row the reason of a reject; notes for the user."""
    split_codes, split_names = _encoded(table["split"])
    rows_of_split = dict(zip(split_names, np.bincount(split_codes).tolist(), strict=True))
    split_of = split_meanings(rows_of_split, options.splits if source.has_usage else NO_PATTERNS, source.name)
    of_split = [_REJECTED if (split := split_of[name]) is None else SPLITS.index(split) for name in split_names]
    splits = np.array(of_split, np.int8)[split_codes]
    label_codes, keys = _encoded(table["label"])
    labelled = (label_codes >= 0) & (splits >= 0)
    pairs, counts = np.unique(np.stack([splits, label_codes])[:, labelled], axis=1, return_counts=True)
    by_split = {(SPLITS[s], keys[k]): n for (s, k), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)}
    meanings, notes = label_meanings(by_split, options, source.name, source.number_order)
    of_key = [meaning if isinstance(meaning := meanings.get(key), int) else NO_LABEL for key in keys]
    labels = np.array([*of_key, NO_LABEL], np.int8)[label_codes]  # the last one for the code -1
    reasons = {
        int(row): f"split '{split_names[split_codes[row]]}', expected Training, PublicTest or PrivateTest; train, valid"
        " or test"
        for row in np.flatnonzero(splits == _REJECTED)
    }
    lost = np.flatnonzero(labelled & (labels == NO_LABEL))
    reasons |= {int(row): str(meanings[keys[label_codes[row]]]) for row in lost}
    splits[list(reasons)] = _REJECTED
    return splits, labels, reasons, notes


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return a code for each row, -1 for null, and the texts by code."""
    encoded = column.combine_chunks().dictionary_encode()
    return pc.fill_null(encoded.indices, -1).to_numpy(), encoded.dictionary.to_pylist()


def take_validation(rows: SpooledRows, fraction: float, seed: int) -> int:
    """Move a stratified random share of the labelled training rows to validation, and return their number.

    Identical images stay together and count for the label of the first one. Every class with two different images keeps
    at least one in each split.
    """
    rng = np.random.default_rng(seed)
    train = rows.of_split("train")
    train = train[rows.labels[train] != NO_LABEL]
    _, first, group, counts = np.unique(rows.groups[train], return_index=True, return_inverse=True, return_counts=True)
    moved = np.zeros(len(counts), bool)
    for label in range(NUM_CLASSES):
        members = rng.permutation(np.flatnonzero(rows.labels[train[first]] == label))
        reached = np.cumsum(counts[members])
        if len(members) > 1:
            wanted = round(fraction * reached[-1])
            take = np.searchsorted(reached, wanted, side="right")
            moved[members[: np.clip(take, 1, len(members) - 1)]] = True
    rows.splits[train[moved[group]]] = SPLITS.index("validation")
    return int(moved[group].sum())


def mean_and_std(spool: Spool, numbers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of some rows, 0 to 1."""
    counts, shades = np.zeros(256, np.int64), np.arange(256)
    for _, images in spool.chunks(numbers):
        counts += np.bincount(images.reshape(-1), minlength=256)
    pixels = int(counts.sum())
    mean = int(counts @ shades) / pixels
    variance = int(counts @ shades**2) / pixels - mean**2
    return mean / 255, float(np.sqrt(max(variance, 0.0))) / 255


def relabel(source: Source, rows: SpooledRows, rejected: int, votes: Votes, labels: str) -> list[str]:
    """Replace the labels of a CSV's usable rows by those of votes, ``majority`` or ``soft``; return notes for the user.

    Raises:
        DataError: the numbers of rows or the splits differ.
    """
    if len(rows) + rejected != len(votes.counts):
        raise DataError(
            f"{votes.path}: has {len(votes.counts):,} rows, {source.name} {len(rows) + rejected:,}; rows are joined by"
            f" number. {REMEDY}"
        )
    numbers = rows.positions
    if source.has_usage and votes.splits is not None:
        _require_same_splits(source, votes, numbers, rows.splits)
    previous, rows.labels = rows.labels, votes.labels()[numbers]
    if labels == "soft":
        rows.soft = votes.shares()[numbers]
    both = (previous != NO_LABEL) & (rows.labels != NO_LABEL)
    won = ", ".join(f"{count:,} {name}" for name, count in votes.unlabelled().items() if count)
    return [
        f"Labels are FER+ votes ({votes.path.name}, {labels}); {(previous != rows.labels)[both].sum():,} of"
        f" {both.sum():,} differ from the label in {source.name}.",
        f"{sum(votes.unlabelled().values()):,} rows of FER+ got no label, by the winning choice: {won}.",
    ]


def _require_same_splits(source: Source, votes: Votes, numbers: np.ndarray, splits: np.ndarray) -> None:
    voted = votes.splits or []
    usable = [(int(row), SPLITS[split]) for row, split in zip(numbers, splits, strict=True) if split >= 0]
    wrong = [(row, split) for row, split in usable if voted[row] != split]
    if wrong:
        row, split = wrong[0]
        raise DataError(
            f"{votes.path}: {len(wrong):,} row(s) have another Usage than {source.name}, first row {row + 1}:"
            f" {voted[row]}, not {split}. {REMEDY}"
        )
