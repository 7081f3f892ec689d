"""Weights that let rare emotions count more in the loss."""

import numpy as np

from fer_ray.config import LossConfig
from fer_ray.emotions import EMOTIONS


def class_weights(counts: np.ndarray, config: LossConfig) -> np.ndarray:
    """Return a weight a class, with mean 1 over the samples.

    Inverse frequency to ``class_weight_power``; or by effective number, (1 - beta) / (1 - beta ** n) for n samples
    (Cui et al., arXiv 1901.05555, whose weights add up to K instead); or what ``class_weights`` gives. Each is then
    multiplied by its ``class_multipliers``.

    Args:
        counts: K; training images of each class, or the sum of their shares of votes for it.
        config: of the loss.

    Returns:
        float32, K. A class without images has weight 0.
    """
    present = counts > 0
    weights = np.zeros(len(counts), np.float64)
    held = counts[present].astype(np.float64)
    if config.class_weights is not None:
        weights[present] = np.array(config.class_weights)[present]
    elif config.effective_number is not None:
        weights[present] = (1 - config.effective_number) / (1 - config.effective_number**held)
    else:
        weights[present] = held**-config.class_weight_power
    weights *= [getattr(config.class_multipliers, name) for name in EMOTIONS]
    weights *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)
