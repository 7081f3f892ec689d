"""Evaluations of made-up predictions, whose metrics are known in advance."""

import numpy as np

from fer_ray.config.schema import Config
from fer_ray.dataset.store import DatasetInfo, SplitInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.inference.calibration import reliability_bins
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, Member, TtaScores, compare, score_predictions
from fer_ray.reporting.card_findings import CardFacts

FINGERPRINT = "f" * 64


def probabilities_of(predicted: np.ndarray, confidence: float) -> np.ndarray:
    """Give the predicted label this probability, and the others equal shares of the rest."""
    probabilities = np.full((len(predicted), len(EMOTIONS)), (1 - confidence) / (len(EMOTIONS) - 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return probabilities


def tta_scores(
    labels: np.ndarray,
    probabilities: np.ndarray,
    leaked: np.ndarray,
    speed: float,
    views: int,
    fewest: np.ndarray | None = None,
) -> TtaScores:
    official = score_predictions(labels, probabilities)
    clean = score_predictions(labels[~leaked], probabilities[~leaked]) if not leaked.all() else None
    return TtaScores(
        official=official,
        without_leaked=clean,
        images_per_s=speed,
        views=views,
        ece_uncalibrated=official.ece,
        nll_uncalibrated=official.nll,
        reliability=reliability_bins(labels, probabilities),
        against_fewest=None if fewest is None else compare(labels, probabilities.argmax(axis=1), fewest),
    )


def describe_dataset(**changes: object) -> DatasetInfo:
    """Describe a clean dataset of 700 training and 140 test images, equally many of each label."""
    values: dict[str, object] = {
        "fer_ray_version": "1",
        "source": "faces.zip",
        "source_format": "zip",
        "size": 48,
        "splits": {
            "train": SplitInfo(rows=700, labels=dict.fromkeys(EMOTIONS, 100)),
            "test": SplitInfo(rows=140, labels=dict.fromkeys(EMOTIONS, 20)),
        },
        "mean": 0.5,
        "std": 0.25,
        "fingerprint": FINGERPRINT,
    }
    return DatasetInfo.model_validate(values | changes)


def describe_training(config: Config | None = None, **metrics: float) -> CheckpointInfo:
    config = config or Config()
    return CheckpointInfo(
        config=config,
        mean=0.5,
        std=0.25,
        size=48,
        epoch=config.training.epochs - 1,
        metrics=metrics,
        dataset_fingerprint=FINGERPRINT,
    )


def make_facts(
    labels: np.ndarray,
    tta: dict[str, np.ndarray],
    *,
    confidence: float = 0.99,
    leaked: np.ndarray | None = None,
    split: str = "test",
    dataset: DatasetInfo | None = None,
    trained: tuple[CheckpointInfo | None, ...] = (None,),
) -> CardFacts:
    """Return the facts of an evaluation of one network.

    Args:
        labels: of the images, csv order.
        tta: name to predicted labels, the main one last; the first has one view, each further one has one more.
        confidence: of every prediction.
        leaked: bool, whether an image is also in train; None for no image.
        split: the evaluated split.
        dataset: None for a dataset that is no longer there.
        trained: how the network was trained; None if its checkpoint is no longer there.
    """
    copies = np.zeros(len(labels), dtype=bool) if leaked is None else leaked
    measured = {
        name: tta_scores(
            labels,
            probabilities_of(predicted, confidence),
            copies,
            1000 / views,
            views,
            next(iter(tta.values())) if views > 1 else None,
        )
        for views, (name, predicted) in enumerate(tta.items(), 1)
    }
    main = list(measured)[-1]
    member = Member(
        checkpoint="runs/a/checkpoint",
        architecture="cnn3",
        parameters=1_300_000,
        epoch=25,
        temperature=1.0,
        accuracy=measured[main].official.accuracy,
        nll=measured[main].official.nll,
        share=None,
        against_all=None,
        against_others=None,
    )
    evaluation = Evaluation(
        fer_ray_version="1",
        members=[member],
        pairs=[],
        dataset="fer-data",
        dataset_fingerprint=FINGERPRINT,
        split=split,
        rows=len(labels),
        leaked_rows=int(copies.sum()),
        label_names=list(EMOTIONS),
        device="cpu",
        precision="float32",
        main_tta=main,
        tta=measured,
    )
    return CardFacts(evaluation, dataset, trained)
