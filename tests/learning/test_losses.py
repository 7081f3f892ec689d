"""The loss of shares of votes, beside torch's loss of labels and by hand."""

import pytest
import torch
import torch.nn.functional as F

from fer_ray.learning.losses import soft_cross_entropy

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
