"""Calibration of probabilities: temperature scaling, reliability bins and the expected calibration error."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_ray.storage.json_files import StoredModel

BINS = 15  # number of bins of equal width from 0 to 1, as in Guo et al. 2017 (arXiv 1706.04599)
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of the temperature. The best one is 0 for a network without errors, infinite for one that knows nothing."""


class ReliabilityBin(StoredModel):
    """The rows whose highest probability is above ``low`` and at most ``high``."""

    low: float
    high: float
    rows: int
    confidence: float | None = Field(description="Mean of the highest probability, 0 to 1; null without rows.")
    accuracy: float | None = Field(description="Share of rows with the right label, 0 to 1; null without rows.")


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T that minimises the mean cross-entropy of ``softmax(logits / T)``.

    It is one number for all classes, so no predicted label changes (Guo et al. 2017, arXiv 1706.04599, section 4.2).
    The loss is convex in 1 / T. The temperature is 1 without rows, or if a logit is not finite. ``logits`` are float,
    n × K, and ``labels`` int, n, 0 to K - 1.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return 1.0
    logits = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def cross_entropy(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x)


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray) -> list[ReliabilityBin]:
    """Group rows into ``BINS`` bins by their highest probability; labels: int, n; probabilities: float, n × K."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    number, bins = np.digitize(confidence, edges[1:-1], right=True), []
    for index, (low, high) in enumerate(pairwise(edges)):
        inside = number == index
        mean, accuracy = (float(values[inside].mean()) if inside.any() else None for values in (confidence, right))
        bins.append(ReliabilityBin(low=low, high=high, rows=int(inside.sum()), confidence=mean, accuracy=accuracy))
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean difference of confidence and accuracy, weighted by rows, 0 to 1 (Guo et al. 2017, equation 3)."""
    gaps = (one.rows * abs((one.confidence or 0.0) - (one.accuracy or 0.0)) for one in bins)
    return sum(gaps) / sum(one.rows for one in bins)
