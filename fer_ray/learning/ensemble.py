"""Several checkpoints as one classifier: the mean of their calibrated probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fer_ray.emotions import csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.checkpoint import Checkpoint, load_checkpoint
from fer_ray.learning.predictor import Predictions, Predictor, average_views


def load_members(folders: Sequence[Path], size: int) -> list[Checkpoint]:
    """Read the checkpoints of an ensemble, which may differ in architecture and order of labels.

    Args:
        folders: one or more checkpoint folders.
        size: side of the images that all must take, in pixels.

    Raises:
        UsageError: a folder is named twice.
        DataError: a checkpoint can't be read, takes images of another size, or has other labels; all of them at once.
    """
    places = [folder.resolve() for folder in folders]
    twice = sorted({str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1})
    if twice:
        raise UsageError([f"{folder}: named twice, which would weight it double. Name it once." for folder in twice])
    members, problems = [], list[str]()
    for folder in folders:
        try:
            checkpoint = load_checkpoint(folder)
        except DataError as error:
            problems += error.problems
            continue
        try:
            csv_order(checkpoint.info.label_names)
        except DataError as error:
            problems += [f"{folder}: {problem}" for problem in error.problems]
        if checkpoint.info.size != size:
            problems.append(
                f"{folder}: takes images of {checkpoint.info.size} pixels, the dataset holds {size}. Prepare the"
                f" dataset with --size {checkpoint.info.size}" + (", or leave it out." if len(folders) > 1 else ".")
            )
        members.append(checkpoint)
    if problems:
        raise DataError(problems)
    return members


@dataclass(frozen=True)
class EnsemblePredictions:
    """What M members say of n images; probabilities are float32, in csv order, and sum to 1.

    Attributes:
        mean: over the members, of their calibrated probabilities.
        members: M × n × K, calibrated, of each member.
        uncalibrated: n × K, as ``mean`` with every temperature 1.
        views: averaged by each member.
    """

    mean: Predictions
    members: np.ndarray
    uncalibrated: np.ndarray
    views: int


class Ensemble:
    """Checkpoints ready to predict on one device; arguments as for ``Predictor``."""

    def __init__(self, members: Sequence[Checkpoint], tta: str, precision: str):
        self._predictors = [Predictor(member, tta, precision) for member in members]

    def predict(self, images: np.ndarray) -> EnsemblePredictions:
        """Predict images; as for ``Predictor.predict``."""
        calibrated, uncalibrated, views_vnk = [], [], torch.zeros(())
        for predictor in self._predictors:
            logits_vnk = predictor.logits(images)[:, :, csv_order(predictor.info.label_names)]
            probs_vnk = (logits_vnk / predictor.info.temperature).softmax(dim=2)
            views_vnk = views_vnk + probs_vnk / len(self._predictors)
            calibrated.append(probs_vnk.mean(dim=0))
            uncalibrated.append(logits_vnk.softmax(dim=2).mean(dim=0))
        return EnsemblePredictions(
            mean=average_views(views_vnk),
            members=torch.stack(calibrated).numpy(),
            uncalibrated=torch.stack(uncalibrated).mean(dim=0).numpy(),
            views=len(views_vnk),
        )
