"""Temperature scaling, reliability bins and the calibration error."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fer_ray.inference.calibration import (
    BINS,
    MIN_TEMPERATURE,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray) -> float:
    return expected_calibration_error(reliability_bins(labels, softmax(logits, axis=1)))


def drawn(scale: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits ``scale`` times as large as those from which the labels are drawn."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (rows, 7))
    labels = np.array([generator.choice(7, p=row) for row in softmax(logits, axis=1)])
    return scale * logits, labels


@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_temperature_undoes_what_makes_logits_too_sure_or_unsure(scale: float) -> None:
    logits, labels = drawn(scale)
    temperature = fit_temperature(logits.astype(np.float32), labels)
    assert temperature == pytest.approx(scale, rel=0.05)
    assert ece(logits, labels) > 0.1
    assert ece(logits / temperature, labels) < 0.02
    assert ((logits / temperature).argmax(1) == logits.argmax(1)).all()
    best = cross_entropy(logits / temperature, labels)
    for other in (0.97, 1.03):
        assert best < cross_entropy(logits / (other * temperature), labels)


def test_a_network_that_is_always_right_stays_within_bounds() -> None:
    labels = np.arange(70) % 7
    assert fit_temperature(np.eye(7)[labels], labels) == pytest.approx(MIN_TEMPERATURE, rel=0.01)


@pytest.mark.parametrize("logits", [np.empty((0, 7)), np.full((3, 7), np.nan), np.full((3, 7), np.inf)])
def test_nothing_to_fit(logits: np.ndarray) -> None:
    assert fit_temperature(logits, np.zeros(len(logits), int)) == 1


def test_bins_hold_each_row_once_and_their_upper_edge() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.21, 0.79], [0.2, 0.8], [0.19, 0.81], [0.0, 1.0]])
    bins = reliability_bins(np.array([0, 0, 0, 1, 1, 0]), probabilities)
    assert len(bins) == BINS and bins[0].low == 0 and bins[-1].high == 1
    assert all(left.high == right.low for left, right in pairwise(bins))
    assert {number: one.rows for number, one in enumerate(bins) if one.rows} == {7: 1, 11: 2, 12: 1, 14: 2}
    assert (bins[11].confidence, bins[11].accuracy) == pytest.approx((0.795, 0.5))  # 0.79 and 0.8 = 12/15
    assert (bins[14].confidence, bins[14].accuracy) == (1, 0.5)
    assert bins[0].confidence is None and bins[0].accuracy is None
    assert expected_calibration_error(bins) == pytest.approx((0.5 + 2 * 0.295 + 0.19 + 2 * 0.5) / 6)
