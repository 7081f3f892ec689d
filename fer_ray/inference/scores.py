"""The scores of an evaluation: the contents of ``metrics.json``, and the contribution of each ensemble member."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np
from pydantic import Field
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, log_loss, precision_recall_fscore_support

from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.inference.calibration import ReliabilityBin, expected_calibration_error, reliability_bins
from fer_ray.inference.checkpoint import Checkpoint
from fer_ray.inference.predictor import Predictions
from fer_ray.storage.json_files import StoredModel, read_json

FORMAT_VERSION = 4
METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.parquet"


class ClassScores(StoredModel):
    """Scores of one class, 0 to 1. A ratio with denominator 0 is 0."""

    precision: float
    recall: float
    f1: float
    support: int = Field(description="Rows with this label.")


class Scores(StoredModel):
    """Scores over rows of a split, 0 to 1 unless another range is given."""

    rows: int
    accuracy: float = Field(description="Share of rows whose most probable label is right.")
    accuracy_low: float = Field(description="Lower end of its 95% interval (Wilson 1927).")
    accuracy_high: float = Field(description="Upper end of its 95% interval.")
    balanced_accuracy: float = Field(description="Mean of recall over the classes that have rows.")
    macro_f1: float = Field(description="Mean of F1 over the classes that have rows.")
    kappa: float = Field(description="Cohen's kappa, agreement beyond chance, -1 to 1; 0 if all rows have one class.")
    nll: float = Field(description="Mean negative log-likelihood of the labels, natural logarithm, 0 or more.")
    ece: float = Field(description="Expected calibration error over 15 equal bins (Guo et al. 2017).")
    classes: dict[str, ClassScores] = Field(description="By name, csv order.")
    confusion: list[list[int]] = Field(description="Rows counted by true (first) and predicted label, csv order.")


class Paired(StoredModel):
    """Comparison of two classifiers on the same rows."""

    only_first_right: int
    only_second_right: int
    mcnemar_p: float = Field(description="p value of the exact two-sided McNemar test of equal accuracy.")


class TtaScores(StoredModel):
    """Scores of one test-time augmentation."""

    official: Scores = Field(description="Over every labelled row of the split.")
    without_leaked: Scores | None = Field(description="Without rows that are also in train; null if none is left.")
    images_per_s: float = Field(description="Speed of prediction by all members, images in memory.")
    views: float = Field(description="Views averaged per image; for adaptive the mean number.")
    ece_uncalibrated: float = Field(description="Like official.ece, with every temperature 1.")
    reliability: list[ReliabilityBin] = Field(description="The 15 bins of official.ece.")
    against_fewest: Paired | None = Field(description="Comparison with the TTA of the fewest views; null for that one.")


class Member(StoredModel):
    """One checkpoint, measured on its own under the main TTA on every labelled row."""

    checkpoint: str
    architecture: str
    parameters: int
    epoch: int
    temperature: float
    accuracy: float
    nll: float
    share: float | None = Field(None, description="Accuracy of all minus accuracy of all but this one; null if alone.")
    against_all: Paired | None = Field(None, description="This checkpoint and the ensemble; null if alone.")
    against_others: Paired | None = Field(None, description="The ensemble with and without this one; null if alone.")


class Pair(Paired):
    """Comparison of two members under the main TTA on every labelled row."""

    first: int = Field(description="Index in members.")
    second: int = Field(description="Index in members.")
    disagreement: float = Field(description="Share of rows for which they predict different labels.")


class Evaluation(StoredModel):
    """The contents of ``metrics.json``."""

    format_version: int = FORMAT_VERSION
    fer_ray_version: str
    members: list[Member] = Field(description="The checkpoints whose mean calibrated probabilities were measured.")
    pairs: list[Pair] = Field(description="Every pair of members.")
    dataset: str
    dataset_fingerprint: str
    split: str
    rows: int = Field(description="Labelled rows of the split.")
    leaked_rows: int = Field(description="Rows whose pixels are also in train.")
    label_names: list[str] = Field(description="csv order.")
    device: str
    precision: str
    main_tta: str = Field(description="The last requested TTA: of members, pairs, predictions, charts and samples.")
    tta: dict[str, TtaScores]
    notes: list[str] = Field(default=[], description="Caveats for readers of the scores.")

    @property
    def main(self) -> TtaScores:
        """Scores under the main TTA."""
        return self.tta[self.main_tta]


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``metrics.json``; ``DataError`` if it is damaged or of another format version."""
    return read_json(Evaluation, folder / METRICS_FILE, "Run `fer-ray evaluate` again.")


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the 95% confidence interval of ``right`` of ``rows``, 0 to 1 (Wilson 1927, doi 10.2307/2276774)."""
    ends = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


def score_predictions(labels: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Compute all scores of labels, int, n > 0, and probabilities, float, n × K, rows of sum 1; both in csv order."""
    every = range(NUM_CLASSES)
    # log_loss warns where a float32 row doesn't sum to 1 in float64.
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    predicted = probabilities.argmax(axis=1)
    low, high = wilson_interval(int((predicted == labels).sum()), len(labels))
    by_class = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    classes = {
        name: ClassScores(precision=precision, recall=recall, f1=f1, support=support)
        for name, precision, recall, f1, support in zip(EMOTIONS, *by_class, strict=True)
    }
    present = [scores for scores in classes.values() if scores.support]
    return Scores(
        rows=len(labels),
        accuracy=float((predicted == labels).mean()),
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=mean(scores.recall for scores in present),
        macro_f1=mean(scores.f1 for scores in present),
        kappa=float(cohen_kappa_score(labels, predicted)) if len(np.union1d(labels, predicted)) > 1 else 0.0,
        nll=float(log_loss(labels, probabilities, labels=every)),
        ece=expected_calibration_error(reliability_bins(labels, probabilities)),
        classes=classes,
        confusion=confusion_matrix(labels, predicted, labels=every).tolist(),
    )


def compare(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Paired:
    """Compare the predictions of two classifiers, int, n each, by the rows that only one of them predicts right."""
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    p = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    return Paired(only_first_right=only_first, only_second_right=only_second, mcnemar_p=float(p))


def measure_members(
    names: Sequence[str], members: Sequence[Checkpoint], labels: np.ndarray, predictions: Predictions
) -> list[Member]:
    """Measure each member on its own, and how much accuracy the ensemble loses without it.

    ``names`` are the members' folders, by path or URL. ``labels`` are those of the n > 0 images, int, csv order.
    """
    together, measured = predictions.labels, []
    for number, (name, member) in enumerate(zip(names, members, strict=True)):
        alone = score_predictions(labels, predictions.members[number])
        one = Member(
            checkpoint=name,
            architecture=member.info.config.model.name,
            parameters=sum(parameter.numel() for parameter in member.model.parameters()),
            epoch=member.info.epoch,
            temperature=member.info.temperature,
            accuracy=alone.accuracy,
            nll=alone.nll,
        )
        if len(members) > 1:
            others = np.delete(predictions.members, number, axis=0).mean(axis=0).argmax(axis=1)
            contribution = {
                "share": float((together == labels).mean() - (others == labels).mean()),
                "against_all": compare(labels, predictions.members[number].argmax(axis=1), together),
                "against_others": compare(labels, together, others),
            }
            one = one.model_copy(update=contribution)
        measured.append(one)
    return measured


def compare_members(labels: np.ndarray, predicted: np.ndarray) -> list[Pair]:
    """Compare every pair of members by their predictions, int, M × n."""
    return [
        Pair(
            first=first,
            second=second,
            disagreement=float((predicted[first] != predicted[second]).mean()),
            **compare(labels, predicted[first], predicted[second]).model_dump(),
        )
        for first, second in combinations(range(len(predicted)), 2)
    ]
