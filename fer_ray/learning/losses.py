"""The training loss where targets are shares of votes."""

import torch
import torch.nn.functional as F

from fer_ray.config import Config
from fer_ray.data.store import DatasetInfo
from fer_ray.errors import UsageError


def require_soft_labels(config: Config, info: DatasetInfo) -> None:
    """Check that a dataset has what ``loss.soft_labels`` learns from.

    Raises:
        UsageError: it has no soft labels.
    """
    if config.loss.soft_labels and not info.soft_labels:
        raise UsageError(
            "loss.soft_labels = True: the dataset has no soft labels. Prepare it from fer2013.csv with --fer-plus"
            " fer2013new.csv --fer-plus-labels soft, or leave loss.soft_labels False."
        )


def soft_cross_entropy(
    logits: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Return the weighted cross-entropy to shares of votes, a scalar.

    Torch divides by the number of rows where targets are shares, and by the sum of their labels' weights where they are
    labels. Here it is that sum in both cases, so that shares of one whole vote give the loss of that label.

    Args:
        logits: float32, n × 7.
        shares: float32, n × 7, each row summing to 1.
        weight: float32, 7, of each class.
        label_smoothing: share of each target spread evenly over all classes.
    """
    total = F.cross_entropy(logits, shares, weight=weight, label_smoothing=label_smoothing, reduction="sum")
    return total / (shares @ weight).sum()
