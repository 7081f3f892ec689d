"""What each member of an ensemble is worth, alone and to the others."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from fer_ray.learning.checkpoint import Checkpoint
from fer_ray.learning.evaluation import Member, Pair, compare, score_predictions
from fer_ray.learning.predictor import Predictions
from fer_ray.shown_places import as_shown


def measure_members(
    folders: Sequence[Path], members: Sequence[Checkpoint], labels: np.ndarray, predictions: Predictions
) -> list[Member]:
    """Measure each member alone, and by how much the ensemble would be worse without it.

    Args:
        folders: of the members.
        members: in the order of ``predictions.members``.
        labels: int, n, n > 0, csv order.
        predictions: of those n images.
    """
    together, several = predictions.labels, len(members) > 1
    measured = []
    for number, (folder, member) in enumerate(zip(folders, members, strict=True)):
        alone = score_predictions(labels, predictions.members[number])
        others = np.delete(predictions.members, number, axis=0).mean(axis=0).argmax(axis=1) if several else together
        share = float((together == labels).mean() - (others == labels).mean())
        measured.append(
            Member(
                checkpoint=as_shown(str(folder)),
                architecture=member.info.config.model.name,
                parameters=sum(parameter.numel() for parameter in member.model.parameters()),
                epoch=member.info.epoch,
                temperature=member.info.temperature,
                accuracy=alone.accuracy,
                nll=alone.nll,
                share=share if several else None,
                against_all=compare(labels, predictions.members[number].argmax(axis=1), together) if several else None,
                against_others=compare(labels, together, others) if several else None,
            )
        )
    return measured


def compare_members(labels: np.ndarray, predicted: np.ndarray) -> list[Pair]:
    """Compare each two members by the rows on which they differ.

    Args:
        labels: int, n, n > 0.
        predicted: int, M × n, of each member.
    """
    return [
        Pair(
            first=first,
            second=second,
            disagreement=float((predicted[first] != predicted[second]).mean()),
            **compare(labels, predicted[first], predicted[second]).model_dump(),
        )
        for first, second in combinations(range(len(predicted)), 2)
    ]
