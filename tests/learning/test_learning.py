"""Class weights, schedules, optimizers and metrics."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from fer_ray.config import OptimizerConfig, ScheduleConfig
from fer_ray.learning.class_weights import class_weights
from fer_ray.learning.device import has_fast_bfloat16, resolve_precision
from fer_ray.learning.metrics import classification_metrics, confusion_matrix
from fer_ray.learning.optimizers import image_size, learning_rate_factor, make_optimizer

FER2013_TRAINING = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


def test_inverse_frequency_of_fer2013() -> None:
    expected = [1.03, 9.41, 1.00, 0.57, 0.85, 1.29, 0.83]
    np.testing.assert_allclose(class_weights(FER2013_TRAINING, 1), expected, atol=0.005)


@pytest.mark.parametrize("power", [0, 0.3, 0.7, 1])
def test_class_weights_average_one_over_the_samples(power: float) -> None:
    weights = class_weights(FER2013_TRAINING, power)
    assert (weights * FER2013_TRAINING).sum() / FER2013_TRAINING.sum() == pytest.approx(1)
    if power == 0:
        assert np.allclose(weights, 1)


def test_a_class_without_images_weighs_nothing() -> None:
    weights = class_weights(np.array([10, 0, 5]), 0.5)
    assert weights[1] == 0 and np.isfinite(weights).all()


def test_one_cycle_rises_then_falls_to_nearly_zero() -> None:
    config = ScheduleConfig(name="one_cycle", warmup=0.25)
    factors = np.array([learning_rate_factor(config, step, 1000) for step in range(1000)])
    assert factors.argmax() in (249, 250, 251) and factors.max() == pytest.approx(1, abs=0.01)
    assert (np.diff(factors[:249]) > 0).all() and (np.diff(factors[251:]) < 0).all()
    assert factors[0] < 0.01 and factors[-1] < 0.002


def test_constant_schedule() -> None:
    assert {learning_rate_factor(ScheduleConfig(name="constant"), step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_spares_biases_and_norms(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    optimizer = make_optimizer(model, OptimizerConfig.model_validate({"name": name, "weight_decay": 0.1}))
    decayed = [p.ndim for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    spared = [p.ndim for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]]
    assert sorted(decayed) == [2, 4] and spared == [1, 1, 1, 1]


def test_metrics_equal_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 7, 300), generator.integers(0, 6, 300)
    scores = classification_metrics(confusion_matrix(labels, predicted, 7))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    ours = (scores.precision, scores.recall, scores.f1, scores.support)
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    assert scores.accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert scores.macro_f1 == pytest.approx(expected[2].mean())


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == torch.float32
    assert resolve_precision("bfloat16", cpu) == torch.bfloat16
    assert resolve_precision("auto", cpu) == (torch.bfloat16 if has_fast_bfloat16(cpu) else torch.float32)


def test_images_grow_from_two_thirds_in_steps_of_8_pixels() -> None:
    sizes = [image_size(0.667, 0.67, epoch / 12, 48) for epoch in range(12)]
    assert sizes == [32] * 5 + [40] * 4 + [48] * 3


def test_images_are_full_from_the_start_where_asked() -> None:
    assert {image_size(1, 0.67, epoch / 3, 52) for epoch in range(3)} == {52}
