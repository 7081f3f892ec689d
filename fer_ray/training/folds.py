"""Cross-validation: folds of a dataset's rows, and the training of a network without one of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray.config.schema import Config
from fer_ray.dataset.near_duplicates import SMALLEST, hash_images, near_groups
from fer_ray.dataset.store import Split
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import UsageError
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Report


def make_folds(rows: Split, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, int64, n, 0 to ``folds`` - 1.

    Folds have about the same share of each label (``StratifiedGroupKFold``). Copies and near-duplicates
    (``fer_ray.dataset.near_duplicates``) are in one fold, as are all images of one flat colour. ``UsageError`` if
    images are too small to find near-duplicates, or a label has too few different images.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # here, as trials import this module and need no folds

    if (size := rows.images.shape[-1]) < SMALLEST:
        raise UsageError(f"images of {size} pixels: near-duplicates need {SMALLEST} or more. Prepare larger ones.")
    hashes = np.concatenate([hash_images(rows.images[at : at + 4096]) for at in range(0, len(rows), 4096)])
    hashes[rows.images.min((1, 2)) == rows.images.max((1, 2))] = 0  # a flat image has no frequencies
    groups = near_groups(hashes)
    different = np.bincount(np.unique(np.stack([groups, rows.labels]), axis=1)[1], minlength=len(EMOTIONS))
    few = [f"{name} {count}" for name, count in zip(EMOTIONS, different.tolist(), strict=True) if 0 < count < folds]
    if few:
        raise UsageError(
            f"--folds {folds}: each needs an image of every label, and different images are few: {', '.join(few)}."
            " Lower --folds, to 2 at least, or add images of these labels."
        )
    fold_of = np.empty(len(rows), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(groups, rows.labels, groups)):
        fold_of[held_out] = fold
    return fold_of


@dataclass(frozen=True)
class FoldTraining:
    """Trains on the rows of all folds but one, on which it validates, as ``fit`` does. The seed tells the fold."""

    folds: np.ndarray  # int64, n, of each row of the training split; the validation split isn't used
    first_seed: int  # of the network without fold 0; the next seed is that of fold 1

    def __call__(self, config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
        """Train; arguments and errors as of ``fit``."""
        held_out = self.folds == config.training.seed - self.first_seed
        train, validation = (data.train.take(np.flatnonzero(rows)) for rows in (~held_out, held_out))
        fit(config, TrainingData(train, validation, data.info), report, resume_from=resume_from)
