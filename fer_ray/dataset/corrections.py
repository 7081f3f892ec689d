"""Corrections of labels by an audit: ``corrections.csv``, which a person may edit, or ``audit.parquet``.

``corrections.csv`` has a line for each label that changes: ``id``; ``label``, the present one; ``proposed``, the new
one; ``keep``, yes, or no to leave the row out.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fer_ray.dataset.assemble import NO_SPLIT, SpooledRows
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, PROBABILITY_COLUMNS, label_of
from fer_ray.errors import DataError, first_ones
from fer_ray.sources.raw_rows import NO_LABEL
from fer_ray.sources.split_names import SPLITS

COLUMNS = ["id", "label", "proposed", "keep"]
_REMEDY = "Use the corrections.csv or audit.parquet of an audit of the same source, prepared with the same options."


def read_corrections(path: Path) -> pd.DataFrame:
    """Read ``corrections.csv`` or ``audit.parquet``; ``DataError`` if the file is neither of them or can't be read.

    Labels ``before`` and ``after`` are in csv order: ``NO_LABEL`` where the row is left out, NaN where the file has no
    emotion's name. Of an audit they are equal, and there are probabilities. ``line`` is for messages.
    """
    try:
        if path.suffix.lower() == ".parquet":
            audit = pd.read_parquet(path, columns=["id", "label", *PROBABILITY_COLUMNS])
            return audit.assign(before=audit["label"], after=audit["label"], keep="yes", line=audit["id"])
        form: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding": "utf-8-sig"}
        frame = pd.read_csv(path, sep=None, engine="python", **form).rename(columns=lambda name: name.strip().lower())
        if missing := [name for name in COLUMNS if name not in frame]:
            raise ValueError(f"it has no column {', '.join(missing)}")
    except (OSError, ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read as corrections: {' '.join(str(error).split())}. {_REMEDY}") from error
    frame = frame.loc[(frame[COLUMNS] != "").any(axis=1), COLUMNS].reset_index(drop=True)  # spreadsheets add empty ones
    before, after = (frame[column].map(label_of).astype(float) for column in ("label", "proposed"))
    keep, line = frame["keep"].str.strip().str.lower(), frame.apply(",".join, axis=1)
    return pd.DataFrame(frame.assign(before=before, after=after.mask(keep == "no", NO_LABEL), keep=keep, line=line))


def correct(rows: SpooledRows, corrections: pd.DataFrame, splits: Sequence[str]) -> str:
    """Change labels, leave rows out, or set soft labels; return a note for the user.

    The rows have their final splits, of which only ``splits`` change. The soft label of a row with probabilities is the
    mean of these and of its label (soft bootstrapping, Reed et al. 2014, arXiv 1412.6596, with equal weights).
    ``DataError`` if a correction is invalid, or its row is missing or has another label.
    """
    ids, before, after = corrections["id"], corrections["before"], corrections["after"]
    at = pc.fill_null(pc.index_in(pa.array(ids, pa.string()), rows.ids.combine_chunks()), -1).to_numpy()
    wrong = {
        "this id has an earlier line. Remove one": ids.duplicated(),
        f"label and proposed must be of {', '.join(EMOTIONS)}": before.isna() | after.isna(),
        "keep must be yes or no": ~corrections["keep"].isin(["yes", "no"]),
        f"the source has no such id. {_REMEDY}": at < 0,
        f"the source has another label. {_REMEDY}": (at >= 0) & before.notna() & (rows.labels[at] != before),
    }
    problems = [f"corrections: {line}: {rule}" for rule, found in wrong.items() for line in corrections["line"][found]]
    if problems:
        raise DataError(first_ones(problems, "corrections: and {} more such line(s)."))
    is_soft = "p_angry" in corrections
    allowed = np.isin(rows.splits[at], [SPLITS.index(split) for split in splits])
    chosen = allowed & (is_soft | (before != after))
    numbers, labels = at[chosen], after[chosen].to_numpy(np.int8)
    left_out, of_split = labels == NO_LABEL, rows.splits[numbers]
    done = [
        f"{what} {count:,} {split} rows"
        for what, which in ((f"changed the {'soft ' * is_soft}labels of", ~left_out), ("left out", left_out))
        for split, count in zip(SPLITS, np.bincount(of_split[which], minlength=len(SPLITS)).tolist(), strict=True)
        if count
    ]
    if is_soft and rows.soft is None:
        rows.soft = _shares(rows.labels)
    if rows.soft is not None:
        own = _shares(labels)
        rows.soft[numbers] = (own + corrections.loc[chosen, PROBABILITY_COLUMNS].to_numpy()) / 2 if is_soft else own
    rows.labels[numbers[~left_out]] = labels[~left_out]
    rows.splits[numbers[left_out]], rows.reasons[numbers[left_out]] = NO_SPLIT, "left out by --corrections"
    note = f"--corrections {', '.join(done) or 'changed nothing'}."
    if skipped := int((~allowed).sum()):
        note += f" {skipped:,} lines are not of {' or '.join(splits)}, and were not used."
    if not is_soft and (of_split > 0).any():
        note += " Figures on validation or test rows that changed differ from those on the original labels."
    return note


def _shares(labels: np.ndarray) -> np.ndarray:
    """Return labels as shares, float32, n × 7; NaN without a label."""
    return np.where(labels[:, None] == NO_LABEL, np.float32(np.nan), np.eye(NUM_CLASSES, dtype=np.float32)[labels])
