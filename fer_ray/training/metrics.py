"""Classification metrics from a confusion matrix."""

from dataclasses import dataclass

import numpy as np

Metrics = dict[str, float]


@dataclass(frozen=True)
class ClassificationMetrics:
    """Accuracy and each class's figures, all 0 to 1.

    A ratio without a denominator (a class never predicted, or never met) is 0, as in scikit-learn with
    ``zero_division=0``; ``macro_f1`` is the plain mean over the classes that were met.
    """

    accuracy: float
    macro_f1: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count rows by true label (first axis) and predicted label (second axis), int64, K × K."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_metrics(confusion: np.ndarray) -> ClassificationMetrics:
    """Compute the metrics of a confusion matrix, K × K, true label first."""
    hits = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = _ratio(hits, predicted)
    recall = _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    accuracy = float(hits.sum() / confusion.sum()) if confusion.sum() else 0.0
    macro_f1 = float(f1[support > 0].mean()) if support.any() else 0.0
    return ClassificationMetrics(accuracy, macro_f1, precision, recall, f1, support)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio
