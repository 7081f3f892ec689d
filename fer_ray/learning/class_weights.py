"""Weights that let rare emotions count more in the loss."""

import numpy as np


def class_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Return a weight a class: inverse frequency to a power, with mean 1 over the samples.

    Args:
        counts: K; training images of each class, or the sum of their shares of votes for it.
        power: 0 for no weighting, 1 for full inverse frequency.

    Returns:
        float32, K. A class without images has weight 0.
    """
    present = counts > 0
    weights = np.zeros(len(counts), np.float64)
    weights[present] = counts[present].astype(np.float64) ** -power
    weights *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)
