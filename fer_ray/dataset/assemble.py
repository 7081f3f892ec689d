"""From raw rows to a dataset: collecting them with their pixels on disk, and giving each its split and label.

The pixels are in a file beside the dataset, so memory holds only some hundred bytes a row, most of them names.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fer_ray.dataset.store import images_of
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import DataError
from fer_ray.sources.fer_plus import REMEDY, Votes
from fer_ray.sources.label_names import NameOptions, label_meanings
from fer_ray.sources.raw_rows import NO_LABEL, Source, raw_schema
from fer_ray.sources.split_names import NO_PATTERNS, SPLITS, split_meanings

NO_SPLIT = -1  # of a reject
_CHUNK_BYTES = 16 << 20
_CHUNK_ROWS = 4096  # fewer where images are large


class Spool:
    """Collects raw rows, their pixels, size × size, in an empty file on a disk; ``chunk_rows`` are handled at once."""

    def __init__(self, file: IO[bytes], size: int):
        self.file, self.size = file, size
        self.chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // size**2))
        fields = [field for field in raw_schema(size) if field.name != "pixels"]
        self._tables = [pa.schema([*fields, ("digest", pa.binary(16)), ("flat", pa.bool_())]).empty_table()]

    def add(self, rows: pa.Table) -> None:
        """Append raw rows, with ``raw_schema(size)``."""
        images = images_of(rows["pixels"], self.size)
        self.file.write(images.data)
        digests = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        rows = rows.drop_columns("pixels").append_column("digest", pa.array(digests, pa.binary(16)))
        rows = rows.append_column("flat", pa.array(images.min((1, 2)) == images.max((1, 2))))
        # `take` copies the rows, so that Ray's object store can free the block.
        self._tables.append(rows.take(np.arange(len(rows))))

    def rows(self, source: Source, options: NameOptions) -> tuple["SpooledRows", list[str]]:
        """Decide the splits and labels of the rows, once all are added; return the rows, and notes for the user.

        Rows with an unknown split or label become rejects. ``DataError`` if the splits or labels would make a wrong
        dataset (``fer_ray.sources.label_names``).
        """
        self.file.flush()
        table = pa.concat_tables(self._tables).combine_chunks()
        splits, labels, reasons, notes = _meanings(table, source, options)
        rows = SpooledRows(
            ids=pc.coalesce(table["id"], pa.array([f"row-{number:07}" for number in range(1, len(table) + 1)])),
            paths=table["path"],
            reasons=reasons,
            splits=splits,
            labels=labels,
            sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()]),
            groups=table["digest"].combine_chunks().dictionary_encode().indices.to_numpy(),
            flat=table["flat"].to_numpy(),
        )
        return rows, notes

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows by number, uint8, n × size × size."""
        # A new mapping each time: pages of an old one would count as this process's memory.
        mapped = np.memmap(self.file, np.uint8, "r").reshape(-1, self.size, self.size)
        return np.asarray(mapped[rows])

    def chunks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the numbers and images of some rows, a few MB at a time."""
        for start in range(0, len(rows), self.chunk_rows):
            chosen = rows[start : start + self.chunk_rows]
            yield chosen, self.pixels(chosen)


@dataclass
class SpooledRows:
    """All n rows in source order, without their pixels."""

    ids: pa.ChunkedArray
    paths: pa.ChunkedArray  # of the row's file, for people
    reasons: np.ndarray  # str, why a row is a reject; None for a row of a split
    splits: np.ndarray  # int8, index into ``SPLITS``; ``NO_SPLIT`` for a reject
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

    def rejects(self) -> pa.Table:
        """Return ``id``, ``path`` and ``reason`` of the rejects, in source order."""
        reasons = pa.array(self.reasons, pa.string())
        return pa.table({"id": self.ids, "path": self.paths, "reason": reasons}).filter(pc.is_valid(reasons))


def _meanings(
    table: pa.Table, source: Source, options: NameOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return each row's index into ``SPLITS`` and label, int8, and the reason of a reject; and notes for the user."""
    reasons = np.array(table["reason"].to_pylist(), object)
    split_codes, split_names = _encoded(table["split"])
    counted = np.bincount(split_codes[split_codes >= 0], minlength=len(split_names)).tolist()
    rows_of_split = dict(zip(split_names, counted, strict=True))
    split_of = split_meanings(rows_of_split, options.splits if source.has_usage else NO_PATTERNS, source.name)
    of_split = [NO_SPLIT if (split := split_of[name]) is None else SPLITS.index(split) for name in split_names]
    splits = np.array([*of_split, NO_SPLIT], np.int8)[split_codes]  # the last one for the code -1
    label_codes, keys = _encoded(table["label"])
    labelled = (label_codes >= 0) & (splits >= 0)
    pairs, counts = np.unique(np.stack([splits, label_codes])[:, labelled], axis=1, return_counts=True)
    by_split = {(SPLITS[s], keys[k]): n for (s, k), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)}
    meanings, notes = label_meanings(by_split, options, source.name, source.number_order)
    of_key = [meaning if isinstance(meaning := meanings.get(key), int) else NO_LABEL for key in keys]
    labels = np.array([*of_key, NO_LABEL], np.int8)[label_codes]
    for row in np.flatnonzero((split_codes >= 0) & (splits == NO_SPLIT)):
        name = split_names[split_codes[row]]
        reasons[row] = f"split '{name}', expected Training, PublicTest or PrivateTest; train, valid or test"
    for row in np.flatnonzero(labelled & (labels == NO_LABEL)):
        reasons[row], splits[row] = str(meanings[keys[label_codes[row]]]), NO_SPLIT
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


def relabel(source: Source, rows: SpooledRows, votes: Votes, labels: str) -> list[str]:
    """Replace the labels of a CSV's rows by those of votes, ``majority`` or ``soft``; return notes for the user.

    ``DataError`` if the numbers of rows or the splits differ.
    """
    if len(rows) != len(votes.counts):
        raise DataError(
            f"{votes.path}: has {len(votes.counts):,} rows, {source.name} {len(rows):,}; rows are joined by number."
            f" {REMEDY}"
        )
    if source.has_usage and (voted := votes.splits):
        splits = {int(row): SPLITS[rows.splits[row]] for row in np.flatnonzero(rows.splits >= 0)}
        if wrong := [row for row, split in splits.items() if voted[row] != split]:
            raise DataError(
                f"{votes.path}: {len(wrong):,} row(s) have another Usage than {source.name}, first row {wrong[0] + 1}:"
                f" {voted[wrong[0]]}, not {splits[wrong[0]]}. {REMEDY}"
            )
    previous, rows.labels = rows.labels, votes.labels()
    if labels == "soft":
        rows.soft = votes.shares()
    both = (previous != NO_LABEL) & (rows.labels != NO_LABEL)
    won = ", ".join(f"{count:,} {name}" for name, count in votes.unlabelled().items() if count)
    return [
        f"Labels are FER+ votes ({votes.path.name}, {labels}); {(previous != rows.labels)[both].sum():,} of"
        f" {both.sum():,} differ from the label in {source.name}.",
        f"{sum(votes.unlabelled().values()):,} rows of FER+ got no label, by the winning choice: {won}.",
    ]
