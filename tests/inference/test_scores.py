"""The figures of an evaluation, against a case worked by hand and against scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.inference.scores import read_evaluation, score_predictions

LABELS = np.array([0, 0, 0, 3, 3, 6])
CLOSE = 1e-6


def probabilities_by_hand() -> np.ndarray:
    """Return for each of ``LABELS`` the probability of angry and of happy, the rest shared by the other five."""
    angry_and_happy = [(0.9, 0.05), (0.7, 0.2), (0.3, 0.6), (0.1, 0.8), (0.4, 0.5), (0.5, 0.3)]
    rows = []
    for angry, happy in angry_and_happy:
        rest = (1 - angry - happy) / 5
        rows.append([angry, rest, rest, happy, rest, rest, rest])
    return np.array(rows)


def test_figures_of_a_case_worked_by_hand() -> None:
    scores = score_predictions(LABELS, probabilities_by_hand())  # predicted: 0, 0, 3, 3, 3, 0
    assert scores.rows == 6
    assert scores.accuracy == pytest.approx(4 / 6, abs=CLOSE)
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3, abs=CLOSE)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0.8) / 3, abs=CLOSE)
    assert scores.weighted_f1 == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6, abs=CLOSE)
    assert scores.kappa == pytest.approx((4 / 6 - 15 / 36) / (1 - 15 / 36), abs=CLOSE)
    assert scores.top2_accuracy == pytest.approx(5 / 6, abs=CLOSE)
    assert scores.nll == pytest.approx(-math.log(0.9 * 0.7 * 0.3 * 0.8 * 0.5 * 0.04) / 6, abs=CLOSE)
    # Each alone in its bin but the last two, which are 0.5 sure and half right.
    assert scores.ece == pytest.approx((0.1 + 0.3 + 0.6 + 0.2 + 0) / 6, abs=CLOSE)
    angry, happy, sad, neutral = (scores.classes[name] for name in ("angry", "happy", "sad", "neutral"))
    assert (angry.precision, angry.recall, angry.support) == pytest.approx((2 / 3, 2 / 3, 3))
    assert (happy.precision, happy.recall, happy.f1) == pytest.approx((2 / 3, 1, 0.8))
    assert (neutral.precision, neutral.recall, neutral.f1, neutral.support) == (0, 0, 0, 1)
    assert (sad.precision, sad.recall, sad.f1, sad.support) == (0, 0, 0, 0)
    assert scores.confusion[0] == [2, 0, 0, 1, 0, 0, 0]
    assert scores.confusion[6] == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("hits", "rows"), [(4, 6), (0, 9), (9, 9), (700, 1000)])
def test_interval_is_wilsons(hits: int, rows: int) -> None:
    predicted = (np.arange(rows) >= hits).astype(int)
    scores = score_predictions(np.zeros(rows, int), np.eye(7)[predicted])
    p, z2 = hits / rows, 1.959963984540054**2 / rows
    centre, half = (p + z2 / 2) / (1 + z2), math.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    assert scores.accuracy == pytest.approx(p)
    assert (scores.accuracy_low, scores.accuracy_high) == pytest.approx((centre - half, centre + half), abs=CLOSE)
    assert 0 <= scores.accuracy_low < scores.accuracy_high <= 1


@pytest.mark.filterwarnings("error")
def test_figures_equal_scikit_learn_and_plain_numpy() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 500)  # the seventh class has no rows
    probabilities = generator.dirichlet(np.full(7, 0.4), 500)
    probabilities[np.arange(500), labels] += generator.uniform(0, 1, 500)
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)
    scores = score_predictions(labels, probabilities)
    predicted = probabilities.argmax(1)
    every = range(7)
    f1 = metrics.f1_score(labels, predicted, labels=every, average=None, zero_division=0)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean([(predicted[labels == label] == label).mean() for label in range(6)]),
        "macro_f1": f1[:6].mean(),
        "weighted_f1": (f1 * np.bincount(labels, minlength=7)).sum() / 500,
        "kappa": metrics.cohen_kappa_score(labels, predicted, labels=every),
        "top2_accuracy": np.mean(
            [label in row.argsort()[-2:] for label, row in zip(labels, probabilities, strict=True)]
        ),
        "nll": -np.log(probabilities[np.arange(500), labels].astype(float)).mean(),
        "ece": plain_ece(labels, probabilities),
    }
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, abs=CLOSE), name
    assert scores.confusion == metrics.confusion_matrix(labels, predicted, labels=every).tolist()
    assert list(scores.classes) == list(EMOTIONS)


def plain_ece(labels: np.ndarray, probabilities: np.ndarray) -> float:
    confidence, right = probabilities.max(1).astype(float), probabilities.argmax(1) == labels
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        total += abs(confidence[inside].sum() - right[inside].sum())
    return total / len(labels)


@pytest.mark.filterwarnings("error")
def test_one_class_alone_has_no_agreement_beyond_chance() -> None:
    scores = score_predictions(np.full(5, 3), np.eye(7)[np.full(5, 3)])
    assert (scores.accuracy, scores.balanced_accuracy, scores.kappa, round(scores.nll, 9), scores.ece) == (
        1,
        1,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format_version": 1, "checkpoint": "c"}', "format version 1, expected 3"),
        ('{"format_version": 3}', "invalid: .* and [0-9]+ more"),
        ("[]", "invalid"),
        ("{", "metrics.json: can't be read"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_evaluation(tmp_path)
