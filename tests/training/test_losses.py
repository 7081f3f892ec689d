"""The loss of shares of votes, beside torch's loss of labels and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_ray.config.schema import LossConfig
from fer_ray.training.losses import Loss, soft_cross_entropy
from fer_ray.training.rows import Batch

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(20, 7, generator=GENERATOR)
LABELS = torch.randint(7, (20,), generator=GENERATOR)
WEIGHT = torch.rand(7, generator=GENERATOR) + 0.1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_whole_votes_give_the_loss_of_their_labels(smoothing: float) -> None:
    expected = F.cross_entropy(LOGITS, LABELS, weight=WEIGHT, label_smoothing=smoothing)
    got = soft_cross_entropy(LOGITS, F.one_hot(LABELS, 7).float(), WEIGHT, smoothing)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_shares_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 0, 0, 0, 0, 0]])
    shares = torch.tensor([[0.25, 0.75, 0, 0, 0, 0, 0]])
    weight = torch.tensor([2.0, 4.0, 1, 1, 1, 1, 1])
    log_sum = torch.log(torch.tensor(6 + torch.e)).item()
    expected = (0.25 * 2 * log_sum + 0.75 * 4 * (log_sum - 1)) / (0.25 * 2 + 0.75 * 4)
    assert soft_cross_entropy(logits, shares, weight, 0.0).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_by_hand() -> None:
    """Of a label with probability p, (1 - p)² times its cross-entropy."""
    logits = torch.tensor([[2.0, 0, 0, 0, 0, 0, 0]])
    p = torch.softmax(logits, dim=1)[0, 0].item()
    target = F.one_hot(torch.tensor([0]), 7).float()
    got = soft_cross_entropy(logits, target, torch.ones(7), 0.0, focal_gamma=2)
    assert got.item() == pytest.approx((1 - p) ** 2 * -math.log(p), rel=1e-5)


def test_distillation_is_its_share_of_the_loss() -> None:
    counts, batch = np.full(7, 10.0), Batch(torch.empty(20), LABELS, None)
    said = torch.rand(20, 7, generator=GENERATOR).softmax(dim=1)
    alone = Loss(LossConfig(label_smoothing=0), counts, torch.device("cpu"))
    taught = Loss(LossConfig(label_smoothing=0, distill_weight=0.7), counts, torch.device("cpu"))
    targets = alone.targets(batch)
    expected = 0.3 * F.cross_entropy(LOGITS, LABELS) - 0.7 * (said * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    assert taught.loss(LOGITS, targets, said).item() == pytest.approx(expected.item(), rel=1e-5)
    assert alone.loss(LOGITS, targets).item() == pytest.approx(F.cross_entropy(LOGITS, LABELS).item(), rel=1e-5)
