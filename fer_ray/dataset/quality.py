"""Flaws of a dataset: copies within and across splits, conflicting labels, flat images."""

from dataclasses import dataclass

import numpy as np

from fer_ray.console.progress import ProgressBar
from fer_ray.dataset.assemble import NO_SPLIT, Spool, SpooledRows
from fer_ray.dataset.near_duplicates import NEAR_DISTANCE, earliest_near, hash_images
from fer_ray.dataset.store import SplitInfo
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.sources.raw_rows import NO_LABEL
from fer_ray.sources.split_names import SPLITS

NEAR_RULE = f"Near-duplicates are pictures whose 64-bit DCT hashes (pHash) differ in at most {NEAR_DISTANCE} bits."
_NONE = -1


@dataclass(frozen=True)
class Findings:
    """The flaws of n rows, in the order train, validation, test; undefined for rejects."""

    first: np.ndarray  # int64, n, number of the first row with the same pixels
    near: np.ndarray  # int64, n, number of the first near-duplicate, -1 without one or if not requested
    flags: dict[str, np.ndarray]  # bool, n, by name, as in ``fer_ray.dataset.store``


def find(rows: SpooledRows, spool: Spool | None = None) -> Findings:
    """Compare the pixels of all rows, and with a spool find near-duplicates too."""
    order = rows.in_order()
    _, position, group = np.unique(rows.groups[order], return_index=True, return_inverse=True)
    first = np.arange(len(rows))
    first[order] = order[position[group]]
    later = rows.splits > 0
    flags = {"flat": rows.flat, "leaked": later & (rows.splits[first] == 0), "conflict": _conflicts(rows, first)}
    if spool is None:
        return Findings(first, np.full(len(rows), _NONE), flags)
    near = _first_near(rows, first, spool)
    flags["near_duplicate"] = (near != _NONE) & (first == np.arange(len(rows)))
    flags["near_leaked"] = later & ~flags["leaked"] & (near != _NONE) & (rows.splits[near] == 0)
    return Findings(first, near, flags)


def _conflicts(rows: SpooledRows, first: np.ndarray) -> np.ndarray:
    """Return for each row whether it is labelled and a row with the same pixels has another label."""
    labelled = (rows.labels != NO_LABEL) & (rows.splits >= 0)
    # A group with two labels: the smallest and the largest differ.
    low, high = np.full(len(rows), NUM_CLASSES, np.int8), np.full(len(rows), NO_LABEL, np.int8)
    np.minimum.at(low, first[labelled], rows.labels[labelled])
    np.maximum.at(high, first[labelled], rows.labels[labelled])
    conflicts: np.ndarray = labelled & (low[first] < high[first])
    return conflicts


def _first_near(rows: SpooledRows, first: np.ndarray, spool: Spool) -> np.ndarray:
    order = rows.in_order()
    # Flat images have no frequencies, so all of them would have the same hash.
    distinct = order[(first[order] == order) & ~rows.flat[order]]
    hashes = [np.empty(0, np.uint64)]
    with ProgressBar("Comparing images", len(distinct)) as bar:
        for chosen, images in spool.chunks(distinct):
            hashes.append(hash_images(images))
            bar.advance(len(chosen))
    earliest = distinct[earliest_near(np.concatenate(hashes))]
    near = np.full(len(rows), _NONE)
    near[distinct] = np.where(earliest == distinct, _NONE, earliest)
    of_row: np.ndarray = near[first]
    return of_row


def drop_leaks(rows: SpooledRows) -> int:
    """Make rejects of the training rows that are also in validation or test, and return their number."""
    later = rows.in_order()
    later = later[rows.splits[later] > 0]
    copied, position = np.unique(rows.groups[later], return_index=True)
    train = rows.of_split("train")
    train = train[np.isin(rows.groups[train], copied)]
    twins = later[position[np.searchsorted(copied, rows.groups[train])]]
    for row, twin, id in zip(train, twins, rows.ids.take(twins).to_pylist(), strict=True):
        rows.reasons[row] = f"left out by --drop-leaks: the same image is in {SPLITS[rows.splits[twin]]} as {id}"
    rows.splits[train] = NO_SPLIT
    return len(train)


def split_info(rows: SpooledRows, findings: Findings, numbers: np.ndarray) -> SplitInfo:
    """Count the rows of a split by label and flaw."""
    labels = rows.labels[numbers]
    counts = np.bincount(labels[labels != NO_LABEL], minlength=NUM_CLASSES).tolist()
    flagged = {name: int(flag[numbers].sum()) for name, flag in findings.flags.items()}
    return SplitInfo(
        rows=len(numbers),
        labels=dict(zip(EMOTIONS, counts, strict=True)),
        unlabelled=int((labels == NO_LABEL).sum()),
        duplicates=int((findings.first[numbers] != numbers).sum()),
        conflicts=flagged.pop("conflict"),
        near_duplicates=flagged.pop("near_duplicate", None),
        **flagged,
    )
