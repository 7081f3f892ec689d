"""Class weights, schedules, optimizers and metrics."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from fer_ray.config.schema import ClassMultipliers, LossConfig, OptimizerConfig, ScheduleConfig
from fer_ray.inference.device import has_fast_bfloat16, resolve_precision
from fer_ray.training.losses import class_weights
from fer_ray.training.metrics import classification_metrics, confusion_matrix
from fer_ray.training.optimizers import make_optimizer
from fer_ray.training.schedules import image_size, learning_rate_factor, trained_stages
from fer_ray.training.weight_average import WeightAverage

FER2013_TRAINING = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


def test_inverse_frequency_of_fer2013() -> None:
    expected = [1.03, 9.41, 1.00, 0.57, 0.85, 1.29, 0.83]
    np.testing.assert_allclose(class_weights(FER2013_TRAINING, LossConfig(class_weight_power=1)), expected, atol=0.005)


@pytest.mark.parametrize("power", [0, 0.3, 0.7, 1])
def test_class_weights_average_one_over_the_samples(power: float) -> None:
    weights = class_weights(FER2013_TRAINING, LossConfig(class_weight_power=power))
    assert (weights * FER2013_TRAINING).sum() / FER2013_TRAINING.sum() == pytest.approx(1)
    if power == 0:
        assert np.allclose(weights, 1)


def test_a_class_without_images_weighs_nothing() -> None:
    weights = class_weights(np.array([10, 0, 5, 3, 3, 3, 3]), LossConfig(class_weight_power=0.5))
    assert weights[1] == 0 and np.isfinite(weights).all()


def test_one_cycle_rises_then_falls_to_nearly_zero() -> None:
    config = ScheduleConfig(name="one_cycle", warmup=0.25)
    factors = np.array([learning_rate_factor(config, step, 1000) for step in range(1000)])
    assert factors.argmax() in (249, 250, 251) and factors.max() == pytest.approx(1, abs=0.01)
    assert (np.diff(factors[:249]) > 0).all() and (np.diff(factors[251:]) < 0).all()
    assert factors[0] < 0.01 and factors[-1] < 0.002


def test_constant_schedule() -> None:
    assert {learning_rate_factor(ScheduleConfig(name="constant"), step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_spares_biases_and_norms(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    optimizer = make_optimizer([*model], OptimizerConfig.model_validate({"name": name, "weight_decay": 0.1}))
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


def test_cosine_rises_then_falls_along_half_a_cosine() -> None:
    config = ScheduleConfig(name="cosine", warmup=0.2)
    factors = np.array([learning_rate_factor(config, step, 1000) for step in range(1000)])
    assert (np.diff(factors[:199]) > 0).all() and (np.diff(factors[200:]) < 0).all()
    assert factors[200] == 1 and factors[600] == pytest.approx(0.5) and factors[999] < 1e-4


def test_step_lowers_the_rate_at_its_shares() -> None:
    config = ScheduleConfig(name="step", step_at=(0.5, 0.75), decay=0.2)
    factors = [learning_rate_factor(config, step, 100) for step in range(100)]
    assert factors == pytest.approx([1.0] * 50 + [0.2] * 25 + [0.04] * 25)


def test_plateau_lowers_the_rate_after_so_many_epochs_without_a_better_one() -> None:
    config = ScheduleConfig(name="plateau", plateau_patience=2, decay=0.5)
    accuracies = [0.1, 0.2, 0.2, 0.19, 0.3, 0.1, 0.1, 0.1, 0.1]
    factors = [learning_rate_factor(config, 0, 10, accuracies[:epochs]) for epochs in range(len(accuracies) + 1)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_effective_number_of_fer2013() -> None:
    """The facts' values add up to 7, ours are 1 on average over the samples: their ratios are the same."""
    expected = np.array([0.80, 2.22, 0.80, 0.78, 0.79, 0.82, 0.79])
    weights = class_weights(FER2013_TRAINING, LossConfig(effective_number=0.999))
    np.testing.assert_allclose(weights * 7 / weights.sum(), expected, atol=0.006)
    assert (weights * FER2013_TRAINING).sum() / FER2013_TRAINING.sum() == pytest.approx(1)


def test_given_class_weights_keep_their_ratios() -> None:
    weights = class_weights(FER2013_TRAINING, LossConfig(class_weights=(1, 2, 1, 1, 1, 1, 3)))
    np.testing.assert_allclose(weights / weights[0], [1, 2, 1, 1, 1, 1, 3], rtol=1e-6)


def test_multipliers_scale_whatever_weights_there_are() -> None:
    plain = class_weights(FER2013_TRAINING, LossConfig(class_weight_power=0.5))
    multiplied = LossConfig(class_weight_power=0.5, class_multipliers=ClassMultipliers(disgust=3))
    weights = class_weights(FER2013_TRAINING, multiplied)
    np.testing.assert_allclose(weights / weights[0] / (plain / plain[0]), [1, 3, 1, 1, 1, 1, 1], rtol=1e-6)
    assert (weights * FER2013_TRAINING).sum() / FER2013_TRAINING.sum() == pytest.approx(1)


def test_stages_thaw_one_by_one_from_the_classifier() -> None:
    config = ScheduleConfig(head_epochs=2, unfreeze_epochs=3)
    assert [trained_stages(config, epoch, 4) for epoch in range(11)] == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    at_once = ScheduleConfig(head_epochs=2)
    assert [trained_stages(at_once, epoch, 4) for epoch in range(4)] == [1, 1, 4, 4]
    assert trained_stages(ScheduleConfig(), 0, 4) == 4


def small_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 7)
    )
    return network.to(memory_format=torch.channels_last)


def test_layer_decay_scales_each_stage() -> None:
    model = small_network()
    optimizer = make_optimizer([model[0], model[1], model[3]], OptimizerConfig(layer_decay=0.5))
    scales = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    assert [scales[id(p)] for p in model.parameters()] == [0.25, 0.25, 0.5, 0.5, 1, 1]


def test_muon_makes_the_step_of_torch_on_the_kernel_as_a_matrix() -> None:
    """Whatever the memory layout: a kernel in channels_last moves as one in the plain layout."""
    config = OptimizerConfig(name="muon", learning_rate=0.01, weight_decay=0.1)
    images, labels = torch.randn(8, 2, 8, 8), torch.arange(8) % 7
    ours, plain = small_network(), small_network()
    for model in (ours, plain):
        torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer = make_optimizer([*ours], config)
    optimizer.step()
    matrices = [
        torch.nn.Parameter(p.detach().contiguous().flatten(1).clone()) for p in plain.parameters() if p.ndim > 1
    ]
    for matrix, p in zip(matrices, (p for p in plain.parameters() if p.ndim > 1), strict=True):
        matrix.grad = p.grad.contiguous().flatten(1)
    torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw").step()
    for matrix, p in zip(matrices, (p for p in ours.parameters() if p.ndim > 1), strict=True):
        torch.testing.assert_close(p.detach().contiguous().flatten(1), matrix.detach(), rtol=1e-2, atol=2e-4)
    assert all(not torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def test_the_average_of_weights_follows_by_its_decay() -> None:
    model = small_network()
    average = WeightAverage(model, 0.5)
    began = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    average.update()  # of step 1 the decay is 2/11
    for key, tensor in average.model.state_dict().items():
        moved = 1 - 2 / 11 if key in dict(model.named_parameters()) else 0
        torch.testing.assert_close(tensor.float(), began[key].float() + moved)
    for _ in range(100):
        average.update()
    torch.testing.assert_close(average.model.state_dict()["3.bias"], model.state_dict()["3.bias"])
