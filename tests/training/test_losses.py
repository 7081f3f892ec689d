"""The loss, beside torch's loss of labels and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fer_ray.config.schema import LossConfig
from fer_ray.training.losses import Loss
from fer_ray.training.rows import Batch

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(20, 7, generator=GENERATOR)
LABELS = torch.randint(7, (20,), generator=GENERATOR)
WEIGHT = torch.rand(7, generator=GENERATOR) + 0.1


def loss_of(weight: torch.Tensor = WEIGHT, **config: float) -> Loss:
    return Loss(LossConfig.model_validate({"label_smoothing": 0} | config), weight.numpy(), torch.device("cpu"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_give_torchs_loss(smoothing: float) -> None:
    expected = F.cross_entropy(LOGITS, LABELS, weight=WEIGHT, label_smoothing=smoothing)
    loss = loss_of(label_smoothing=smoothing)
    got = loss.loss(LOGITS, loss.targets(Batch(torch.empty(20), LABELS, None)))
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_labels_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 0, 0, 0, 0, 0]])
    soft = torch.tensor([[0.25, 0.75, 0, 0, 0, 0, 0]])
    log_sum = math.log(6 + math.e)
    expected = (0.25 * 2 * log_sum + 0.75 * 4 * (log_sum - 1)) / (0.25 * 2 + 0.75 * 4)
    loss = loss_of(torch.tensor([2.0, 4.0, 1, 1, 1, 1, 1]), soft_labels=True)
    targets = loss.targets(Batch(torch.empty(1), LABELS[:1], soft))
    assert loss.loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_by_hand() -> None:
    """For a label with probability p it is (1 - p)² times the cross-entropy."""
    logits = torch.tensor([[2.0, 0, 0, 0, 0, 0, 0]])
    p = torch.softmax(logits, dim=1)[0, 0].item()
    got = loss_of(torch.ones(7), focal_gamma=2).loss(logits, F.one_hot(torch.tensor([0]), 7).float())
    assert got.item() == pytest.approx((1 - p) ** 2 * -math.log(p), rel=1e-5)


def test_distillation_is_its_share_of_the_loss() -> None:
    teachers, loss = torch.rand(20, 7).softmax(dim=1), loss_of(torch.ones(7), distill_weight=0.7)
    targets = loss.targets(Batch(torch.empty(20), LABELS, None))
    expected = 0.3 * F.cross_entropy(LOGITS, LABELS) - 0.7 * (teachers * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss.loss(LOGITS, targets, teachers).item() == pytest.approx(expected.item(), rel=1e-5)
