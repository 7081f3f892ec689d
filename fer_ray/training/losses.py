"""The training loss: cross-entropy to labels, shares of votes or mixed labels, and what a teacher says."""

import numpy as np
import torch
import torch.nn.functional as F

from fer_ray.config.schema import LossConfig
from fer_ray.emotions import EMOTIONS, NUM_CLASSES
from fer_ray.training.rows import Batch


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


class Loss:
    """The configured loss.

    Args:
        config: of the loss.
        counts: K; training images of each class over all workers, or the sums of their shares.
        device: of the logits.
    """

    def __init__(self, config: LossConfig, counts: np.ndarray, device: torch.device):
        self._config = config
        self._weight = torch.tensor(class_weights(counts, config), device=device)

    def targets(self, batch: Batch) -> torch.Tensor:
        """Return what is to be learnt of each row: shares of the classes, float32, B × K, that sum to 1."""
        if self._config.soft_labels:
            assert batch.shares is not None, "the dataset has soft labels, and so have its splits"
            return batch.shares
        return F.one_hot(batch.labels, NUM_CLASSES).float()

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, teachers: torch.Tensor | None = None) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            logits: float32, B × K.
            targets: float32, B × K.
            teachers: probabilities, float32, B × K, that are learnt too; None for none.
        """
        config = self._config
        loss = soft_cross_entropy(logits, targets, self._weight, config.label_smoothing, config.focal_gamma)
        if teachers is None:
            return loss
        return (1 - config.distill_weight) * loss + config.distill_weight * F.cross_entropy(logits, teachers)


def soft_cross_entropy(
    logits: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, label_smoothing: float, focal_gamma: float = 0.0
) -> torch.Tensor:
    """Return the weighted cross-entropy to shares of the classes, a scalar.

    Torch divides by the number of rows where targets are shares, and by the sum of their labels' weights where they are
    labels. Here it is that sum in both cases, so that shares of one whole label give torch's loss of that label.

    Args:
        logits: float32, n × K.
        shares: float32, n × K, each row summing to 1.
        weight: float32, K, of each class.
        label_smoothing: share of each target spread evenly over all classes.
        focal_gamma: power of (1 - p) by which each class's term is multiplied (Lin et al., arXiv 1708.02002).
    """
    log_probs = logits.log_softmax(dim=1)
    smoothed = shares * (1 - label_smoothing) + label_smoothing / shares.shape[1]
    terms = -smoothed * weight * log_probs
    if focal_gamma:
        terms = terms * (1 - log_probs.exp()) ** focal_gamma
    return terms.sum() / (shares @ weight).sum()
