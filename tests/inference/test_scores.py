"""The scores of an evaluation against a case worked by hand; temperature scaling; damaged files."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fer_ray.errors import DataError
from fer_ray.inference.calibration import (
    BINS,
    MIN_TEMPERATURE,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from fer_ray.inference.scores import read_evaluation, score_predictions

CLOSE = 1e-6


def probabilities_by_hand() -> np.ndarray:
    """Return the probabilities of six images: of angry and of happy as listed, the rest shared by the other five."""
    angry_and_happy = [(0.9, 0.05), (0.7, 0.2), (0.3, 0.6), (0.1, 0.8), (0.4, 0.5), (0.5, 0.3)]
    rows = []
    for angry, happy in angry_and_happy:
        rest = (1 - angry - happy) / 5
        rows.append([angry, rest, rest, happy, rest, rest, rest])
    return np.array(rows)


def test_figures_of_a_case_worked_by_hand() -> None:
    scores = score_predictions(np.array([0, 0, 0, 3, 3, 6]), probabilities_by_hand())  # predicted: 0, 0, 3, 3, 3, 0
    assert scores.rows == 6
    assert scores.accuracy == pytest.approx(4 / 6, abs=CLOSE)
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3, abs=CLOSE)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0.8) / 3, abs=CLOSE)
    assert scores.kappa == pytest.approx((4 / 6 - 15 / 36) / (1 - 15 / 36), abs=CLOSE)
    assert scores.nll == pytest.approx(-math.log(0.9 * 0.7 * 0.3 * 0.8 * 0.5 * 0.04) / 6, abs=CLOSE)
    # Each alone in its bin but the last two, which are 0.5 sure and half right.
    assert scores.ece == pytest.approx((0.1 + 0.3 + 0.6 + 0.2 + 0) / 6, abs=CLOSE)
    angry, happy, sad, neutral = (scores.classes[name] for name in ("angry", "happy", "sad", "neutral"))
    assert (angry.precision, angry.recall, angry.support) == pytest.approx((2 / 3, 2 / 3, 3))
    assert (happy.precision, happy.recall, happy.f1) == pytest.approx((2 / 3, 1, 0.8))
    assert (neutral.precision, neutral.recall, neutral.f1, neutral.support) == (0, 0, 0, 1)
    assert (sad.precision, sad.recall, sad.f1, sad.support) == (0, 0, 0, 0)
    assert scores.confusion[0] == [2, 0, 0, 1, 0, 0, 0]


@pytest.mark.filterwarnings("error")
def test_one_class_alone_has_no_agreement_beyond_chance() -> None:
    alone = score_predictions(np.full(5, 3), np.eye(7, dtype=np.float32)[np.full(5, 3)])
    assert (alone.accuracy, alone.balanced_accuracy, alone.kappa, round(alone.nll, 9), alone.ece) == (1, 1, 0, 0, 0)
    assert (alone.accuracy_low, alone.accuracy_high) == pytest.approx((5 / (5 + 1.959964**2), 1))  # Wilson's interval


def test_other_files_are_refused(tmp_path: Path) -> None:
    contents = {
        '{"format_version": 1, "checkpoint": "c"}': "format version 1, expected 4",
        '{"format_version": 4}': "invalid: .* and [0-9]+ more",
        "{": "metrics.json: can't be read",
    }
    for content, message in contents.items():
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_evaluation(tmp_path)


@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_temperature_undoes_what_makes_logits_too_sure_or_unsure(scale: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (20_000, 7))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by the softmax of the logits
    logits *= scale
    temperature = fit_temperature(logits.astype(np.float32), labels)
    assert temperature == pytest.approx(scale, rel=0.05)
    before, after = (reliability_bins(labels, softmax(logits / t, axis=1)) for t in (1, temperature))
    assert expected_calibration_error(before) > 0.1 and expected_calibration_error(after) < 0.02
    rows = np.arange(len(labels))
    best, cooler, warmer = (
        -log_softmax(logits / (factor * temperature), axis=1)[rows, labels].mean() for factor in (1, 0.97, 1.03)
    )
    assert best < min(cooler, warmer)


def test_temperatures_at_the_bounds() -> None:
    labels = np.arange(70) % 7
    assert fit_temperature(np.eye(7)[labels], labels) == pytest.approx(MIN_TEMPERATURE, rel=0.01)  # always right
    for logits in (np.empty((0, 7)), np.full((3, 7), np.nan), np.full((3, 7), np.inf)):
        assert fit_temperature(logits, np.zeros(len(logits), int)) == 1


def test_bins_hold_each_row_once_and_their_upper_edge() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.21, 0.79], [0.2, 0.8], [0.19, 0.81], [0.0, 1.0]])
    bins = reliability_bins(np.array([0, 0, 0, 1, 1, 0]), probabilities)
    assert len(bins) == BINS and bins[0].low == 0 and bins[-1].high == 1
    assert {number: one.rows for number, one in enumerate(bins) if one.rows} == {7: 1, 11: 2, 12: 1, 14: 2}
    assert (bins[11].confidence, bins[11].accuracy) == pytest.approx((0.795, 0.5))  # 0.79 and 0.8 = 12/15
    assert bins[0].confidence is None and bins[0].accuracy is None
    assert expected_calibration_error(bins) == pytest.approx((0.5 + 2 * 0.295 + 0.19 + 2 * 0.5) / 6)
