"""FER+: ten votes on each image of FER-2013, in ``fer2013new.csv`` (Barsoum et al. 2016, arXiv 1608.01041).

Its rows are in the order of ``fer2013.csv`` and are joined by it. Columns are found by name, whatever their case:
``neutral``, ``happiness``, ``surprise``, ``sadness``, ``anger``, ``disgust``, ``fear``, ``contempt``, ``unknown`` and
``NF`` (no face) hold numbers of votes, ``Usage`` holds the split. Other columns are ignored.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray.emotions import EMOTIONS, NUM_CLASSES, label_of
from fer_ray.errors import DataError, first_ones
from fer_ray.sources.raw_rows import NO_LABEL
from fer_ray.sources.split_names import read_splits

VOTED = (*EMOTIONS, "contempt", "unknown", "nf")
"""The choices of the voters: the seven emotions in csv order, then those that give a row no label."""

REMEDY = "Use FER+'s fer2013new.csv with the fer2013.csv that it belongs to."
_VOTES = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Votes:
    """The votes of a file."""

    path: Path
    counts: np.ndarray  # int64, n × 10, in the order of ``VOTED``
    splits: list[str] | None  # n names; None if the file has no ``Usage``

    def labels(self) -> np.ndarray:
        """Return the emotion with the most votes, int8, n, csv order; ``NO_LABEL`` for another choice or a tie."""
        winners = self._winners()
        return np.where(winners < NUM_CLASSES, winners, NO_LABEL).astype(np.int8)

    def shares(self) -> np.ndarray:
        """Return each emotion's share of the votes for the seven emotions, float32, n × 7; NaN without such votes."""
        emotions = self.counts[:, :NUM_CLASSES].astype(np.float32)
        totals = emotions.sum(1, keepdims=True)
        shares: np.ndarray = np.divide(emotions, totals, out=np.full_like(emotions, np.nan), where=totals > 0)
        return shares

    def unlabelled(self) -> dict[str, int]:
        """Count the rows without a label by the winning choice."""
        names = (*VOTED, "a tie", "no vote")
        counts = np.bincount(self._winners(), minlength=len(names)).tolist()
        return dict(zip(names[NUM_CLASSES:], counts[NUM_CLASSES:], strict=True))

    def _winners(self) -> np.ndarray:
        """Return the position of each row's choice in ``VOTED``; beyond its end for a tie, then for no vote."""
        most = self.counts.max(1)
        is_tied = (self.counts == most[:, None]).sum(1) > 1
        tied: np.ndarray = np.where(most == 0, len(VOTED) + 1, len(VOTED))
        return np.where(is_tied, tied, self.counts.argmax(1))


def read_votes(path: Path) -> Votes:
    """Read a file of votes; ``DataError`` with all problems if it is missing, no such CSV, or holds other values."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {what}. {REMEDY}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, skipinitialspace=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV: {error}. {REMEDY}") from error
    names = [name.strip().lower() for name in lines[0]] if lines else []
    known = [name if (label := label_of(name)) is None else EMOTIONS[label] for name in names]
    if missing := [name for name in VOTED if known.count(name) != 1]:
        raise DataError(f"{path}: has no column of votes for {', '.join(missing)}. {REMEDY}")
    columns = [known.index(name) for name in VOTED]
    usage = names.index("usage") if "usage" in names else None
    counts, splits, problems = [], [], []
    for number, line in enumerate(lines[1:], start=1):
        cells = [line[column].strip() for column in columns] if len(line) == len(names) else []
        if not cells:
            problems.append(f"{path}: data row {number}: {len(line)} column(s), {len(names)} expected.")
        elif wrong := [cell for cell in cells if not _VOTES.fullmatch(cell)]:
            problems.append(f"{path}: data row {number}: votes '{wrong[0]}', expected a whole number from 0.")
        else:
            counts.append([int(cell) for cell in cells])
            splits.append("" if usage is None else line[usage])
    if problems:
        raise DataError(first_ones(problems, f"{path}: and {{}} more such data row(s). {REMEDY}"))
    array = np.array(counts, np.int64).reshape(len(counts), len(VOTED))
    meanings = read_splits(set(splits))
    return Votes(path, array, None if usage is None else [meanings[split] or split for split in splits])
