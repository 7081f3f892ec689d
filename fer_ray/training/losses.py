"""The training loss: cross-entropy to labels, soft labels or mixed labels, and distillation."""

import numpy as np
import torch
import torch.nn.functional as F

from fer_ray.config.schema import LossConfig
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.training.rows import Batch


def class_weights(counts: np.ndarray, config: LossConfig) -> np.ndarray:
    """Return one weight per class, with mean 1 over the samples.

    The weights are inverse frequencies to the power ``class_weight_power``; or effective numbers, (1 - beta) /
    (1 - beta ** n) for n samples (Cui et al., arXiv 1901.05555, where they sum to K); or ``class_weights``. Each weight
    is then multiplied by its entry of ``class_multipliers``.

    Args:
        counts: K; training images of each class, or the sums of their soft labels.
        config: the loss configuration.

    Returns:
        float32, K. A class without images has weight 0.
    """
    present = counts > 0
    weights = np.zeros(len(counts), np.float64)
    samples = counts[present].astype(np.float64)
    if config.class_weights is not None:
        weights[present] = np.array(config.class_weights)[present]
    elif config.effective_number is not None:
        weights[present] = (1 - config.effective_number) / (1 - config.effective_number**samples)
    else:
        weights[present] = samples**-config.class_weight_power
    weights *= [getattr(config.class_multipliers, name) for name in EMOTIONS]
    weights *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)


class Loss:
    """The configured loss.

    Args:
        config: the loss configuration.
        counts: K; training images of each class over all workers, or the sums of their soft labels.
        device: the device of the logits.
    """

    def __init__(self, config: LossConfig, counts: np.ndarray, device: torch.device):
        self._config = config
        self._weight = torch.tensor(class_weights(counts, config), device=device)

    def targets(self, batch: Batch) -> torch.Tensor:
        """Return the target distribution of each row, float32, B × K. Each row sums to 1."""
        if self._config.soft_labels:
            assert batch.shares is not None, "a dataset with soft labels has them in each split"
            return batch.shares
        return F.one_hot(batch.labels, NUM_CLASSES).float()

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, teachers: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            logits: float32, B × K.
            targets: float32, B × K.
            teachers: the teachers' probabilities, float32, B × K; None without teachers.
        """
        config = self._config
        loss = soft_cross_entropy(logits, targets, self._weight, config.label_smoothing, config.focal_gamma)
        if teachers is None:
            return loss
        return (1 - config.distill_weight) * loss + config.distill_weight * F.cross_entropy(logits, teachers)


def soft_cross_entropy(
    logits: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, label_smoothing: float, focal_gamma: float = 0.0
) -> torch.Tensor:
    """Return the weighted cross-entropy to target distributions, a scalar.

    For label targets, torch divides by the sum of the labels' weights; for distributions, by the number of rows. This
    function always divides by the sum of the weights, so a one-hot distribution gives the same loss as its label.

    Args:
        logits: float32, n × K.
        shares: target distributions, float32, n × K. Each row sums to 1.
        weight: class weights, float32, K.
        label_smoothing: fraction of each target that is spread evenly over all classes.
        focal_gamma: power of (1 - p) by which each class's term is multiplied (Lin et al., arXiv 1708.02002).
    """
    log_probs = logits.log_softmax(dim=1)
    smoothed = shares * (1 - label_smoothing) + label_smoothing / shares.shape[1]
    terms = -smoothed * weight * log_probs
    if focal_gamma:
        terms = terms * (1 - log_probs.exp()) ** focal_gamma
    return terms.sum() / (shares @ weight).sum()
