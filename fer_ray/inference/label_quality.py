"""Which labels are likely wrong, by confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068)."""

from dataclasses import dataclass

import numpy as np
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues

LIKELY_WRONG, AMBIGUOUS, PLAUSIBLE = "likely_wrong", "ambiguous", "plausible"
AMBIGUOUS_MARGIN = 0.1
"""Difference of the two highest probabilities, 0 to 1, below which a row is ambiguous."""
_RESAMPLES = 200


@dataclass(frozen=True)
class LabelQuality:
    """The quality of the labels of n rows. Labels are in csv order, K of them."""

    rank: np.ndarray  # int64, n, from 1, the label of lowest probability
    proposed: np.ndarray  # int64, n, the most probable label
    kind: np.ndarray  # str, n: ``LIKELY_WRONG``, ``AMBIGUOUS`` or ``PLAUSIBLE``
    joint: np.ndarray  # float64, K × K, estimated number of rows by label (row) and true label (column)
    wrong_intervals: np.ndarray  # float64, K + 1 × 2, 95% interval of the share of wrong labels, the last of all labels


def label_quality(labels: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> LabelQuality:
    """Judge labels by predictions of networks that never saw them.

    ``LIKELY_WRONG`` is a row whose probability of another label is at least as high as the mean that rows of that label
    have for it. Any other row is ``AMBIGUOUS`` below ``AMBIGUOUS_MARGIN``. Intervals are percentiles over rows that are
    drawn anew, by ``seed``; an error that the networks share is not in them. ``labels`` are int, n, 0 to K - 1, and
    ``probabilities`` float, n × K, calibrated.
    """
    highest = np.sort(probabilities, axis=1)[:, -2:]
    is_wrong = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    is_ambiguous = highest[:, 1] - highest[:, 0] < AMBIGUOUS_MARGIN
    rng, shares = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(labels), size=len(labels))
        shares.append(wrong_shares(compute_confident_joint(labels[drawn], probabilities[drawn])))
    return LabelQuality(
        rank=probabilities[np.arange(len(labels)), labels].argsort(kind="stable").argsort() + 1,
        proposed=probabilities.argmax(axis=1),
        kind=np.select([is_wrong, is_ambiguous], [LIKELY_WRONG, AMBIGUOUS], PLAUSIBLE),
        joint=compute_confident_joint(labels, probabilities),
        wrong_intervals=np.quantile(shares, (0.025, 0.975), axis=0).T,
    )


def wrong_shares(joint: np.ndarray) -> np.ndarray:
    """Return the share of wrong labels, 0 to 1, K + 1, of each label and of all, by a ``LabelQuality.joint``."""
    given, right = (np.append(counts, counts.sum()) for counts in (joint.sum(axis=1), joint.diagonal()))
    shares: np.ndarray = 1 - right / np.maximum(given, 1)
    shares[given == 0] = 0
    return shares
