"""Corrections of labels by an audit: ``corrections.csv``, which a person may edit, or ``audit.parquet``.

``corrections.csv`` has a line for each label that changes: ``id``; ``label``, the present one; ``proposed``, the new
one; ``keep``, yes, or no to leave the row out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fer_ray.dataset.assemble import NO_SPLIT, SpooledRows
from fer_ray.emotions import EMOTIONS, NUM_CLASSES, label_of
from fer_ray.errors import DataError, first_ones
from fer_ray.sources.raw_rows import NO_LABEL
from fer_ray.sources.split_names import SPLITS

COLUMNS = ["id", "label", "proposed", "keep"]
PROBABILITIES = [f"p_{name}" for name in EMOTIONS]
_REMEDY = "Use the corrections.csv or audit.parquet of an audit of the same source, prepared with the same options."


def read_corrections(path: Path) -> pd.DataFrame:
    """Read ``corrections.csv`` or ``audit.parquet``; ``DataError`` if the file is neither of them or can't be read.

    Labels ``before`` and ``after`` are in csv order: ``NO_LABEL`` where the row is left out, NaN where the file has no
    emotion's name. Of an audit they are equal, and there are probabilities.
    """
    try:
        if path.suffix == ".parquet":
            audit = pd.read_parquet(path, columns=["id", "label", *PROBABILITIES])
            return audit.assign(before=audit["label"], after=audit["label"], keep="yes")
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")[COLUMNS]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read as corrections: {error}. {_REMEDY}") from error
    before, after = (frame[column].map(label_of).astype(float) for column in ("label", "proposed"))
    keep = frame["keep"].str.strip().str.lower()
    return frame.assign(before=before, after=after.mask(keep == "no", NO_LABEL), keep=keep)


def correct(rows: SpooledRows, corrections: pd.DataFrame, splits: Sequence[str]) -> str:
    """Change labels, leave rows out, or set soft labels; return a note for the user.

    The rows have their final splits, of which only ``splits`` change. The soft label of a row with probabilities is the
    mean of these and of its label (soft bootstrapping, Reed et al. 2014, arXiv 1412.6596, with equal weights).
    ``DataError`` if a correction is invalid, or its row is missing or has another label.
    """
    ids, before, after = corrections["id"], corrections["before"], corrections["after"]
    at = pc.fill_null(pc.index_in(pa.array(ids, pa.string()), rows.ids.combine_chunks()), -1).to_numpy()
    wrong = {
        "is named twice": ids.duplicated(),
        f"label and proposed must be of {', '.join(EMOTIONS)}": before.isna() | after.isna(),
        "keep must be yes or no": ~corrections["keep"].isin(["yes", "no"]),
        "is unknown": at < 0,
        "has another label in the source": (at >= 0) & before.notna() & (rows.labels[at] != before),
    }
    problems = [f"corrections: id '{id}' {rule}." for rule, found in wrong.items() for id in ids[found]]
    if problems:
        raise DataError(first_ones(problems, f"corrections: and {{}} more such line(s). {_REMEDY}"))
    is_soft = "p_angry" in corrections
    allowed = np.isin(rows.splits[at], [SPLITS.index(split) for split in splits])
    chosen = allowed & (is_soft | (before != after))
    numbers, labels = at[chosen], after[chosen].to_numpy(np.int8)
    left_out = numbers[labels == NO_LABEL]
    of_split = np.bincount(rows.splits[numbers], minlength=len(SPLITS)).tolist()
    rows.corrected = {split: count for split, count in zip(SPLITS, of_split, strict=True) if count}
    if is_soft and rows.soft is None:
        rows.soft = _shares(rows.labels)
    if rows.soft is not None:
        rows.soft[numbers] = _shares(labels)
        if is_soft:
            rows.soft[numbers] = (rows.soft[numbers] + corrections.loc[chosen, PROBABILITIES].to_numpy()) / 2
    rows.labels[numbers[labels != NO_LABEL]] = labels[labels != NO_LABEL]
    rows.splits[left_out], rows.reasons[left_out] = NO_SPLIT, "left out by --corrections"
    done = " and ".join(f"{count:,} of {split}" for split, count in rows.corrected.items()) or "none"
    note = (
        f"--corrections changed {'the soft labels of ' * is_soft}{done} rows and left out {len(left_out):,} of these."
    )
    if skipped := int((~allowed).sum()):
        note += f" {skipped:,} rows stayed as they were, because they are not in {' or '.join(splits)}."
    return note


def _shares(labels: np.ndarray) -> np.ndarray:
    """Return labels as shares, float32, n × 7; NaN without a label."""
    shares: np.ndarray = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    shares[labels == NO_LABEL] = np.nan
    return shares
