"""Losses beside torch's and by hand, class weights, schedules, optimizers and averages."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from fer_ray.config.schema import ClassMultipliers, LossConfig, OptimizerConfig, ScheduleConfig
from fer_ray.training.loop import macro_f1
from fer_ray.training.losses import Loss, class_weights
from fer_ray.training.optimizers import WeightAverage, make_optimizer
from fer_ray.training.rows import Batch
from fer_ray.training.schedules import image_size, learning_rate_factor, trained_stages

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(20, 7, generator=GENERATOR)
LABELS = torch.randint(7, (20,), generator=GENERATOR)
WEIGHT = torch.rand(7, generator=GENERATOR) + 0.1
FER2013_TRAINING = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


@pytest.mark.parametrize(
    ("config", "expected", "scale"),
    [
        (LossConfig(), [1] * 7, 1),
        (LossConfig(class_weight_power=1), [1.03, 9.41, 1.00, 0.57, 0.85, 1.29, 0.83], 1),
        # Cui et al. scale the weights to sum to 7.
        (LossConfig(effective_number=0.999), [0.80, 2.22, 0.80, 0.78, 0.79, 0.82, 0.79], 7),
        (LossConfig(class_weights=(1, 2, 1, 1, 1, 1, 3)), np.array([1, 2, 1, 1, 1, 1, 3]) * 7 / 10, 7),
        (LossConfig(class_multipliers=ClassMultipliers(disgust=3)), np.array([1, 3, 1, 1, 1, 1, 1]) * 7 / 9, 7),
    ],
    ids=["none", "inverse frequency", "effective number", "given", "multiplied"],
)
def test_class_weights_of_fer2013(config: LossConfig, expected: list[float], scale: float) -> None:
    weights = class_weights(FER2013_TRAINING, config)
    assert (weights * FER2013_TRAINING).sum() / FER2013_TRAINING.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights * 7 / weights.sum() if scale == 7 else weights, expected, atol=0.006)

    weights = class_weights(np.array([10, 0, 5, 3, 3, 3, 3]), LossConfig(class_weight_power=0.5))  # one has no image
    assert weights[1] == 0 and np.isfinite(weights).all()


def factors(config: ScheduleConfig, steps: int = 1000) -> np.ndarray:
    return np.array([learning_rate_factor(config, step, steps) for step in range(steps)])


def test_schedules() -> None:
    rate = factors(ScheduleConfig(name="one_cycle", warmup=0.25))
    assert rate.argmax() in (249, 250, 251) and rate.max() == pytest.approx(1, abs=0.01)
    assert (np.diff(rate[:249]) > 0).all() and (np.diff(rate[251:]) < 0).all()
    assert rate[0] < 0.01 and rate[-1] < 0.002
    rate = factors(ScheduleConfig(name="cosine", warmup=0.2))
    assert (np.diff(rate[:199]) > 0).all() and (np.diff(rate[200:]) < 0).all()
    assert rate[200] == 1 and rate[600] == pytest.approx(0.5) and rate[999] < 1e-4
    rate = factors(ScheduleConfig(name="step", step_at=(0.5, 0.75), decay=0.2), 100)
    assert rate.tolist() == pytest.approx([1.0] * 50 + [0.2] * 25 + [0.04] * 25)
    assert set(factors(ScheduleConfig(name="constant"))) == {1.0}
    config = ScheduleConfig(name="plateau", plateau_patience=2, decay=0.5)
    accuracies = [0.1, 0.2, 0.2, 0.19, 0.3, 0.1, 0.1, 0.1, 0.1]
    rates = [learning_rate_factor(config, 0, 10, accuracies[:epochs]) for epochs in range(len(accuracies) + 1)]
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_images_grow_and_stages_thaw() -> None:
    assert [image_size(0.667, 0.67, epoch / 12, 48) for epoch in range(12)] == [32] * 5 + [40] * 4 + [48] * 3
    assert {image_size(1, 0.67, epoch / 3, 52) for epoch in range(3)} == {52}
    config = ScheduleConfig(head_epochs=2, unfreeze_epochs=3)
    assert [trained_stages(config, epoch, 4) for epoch in range(11)] == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert [trained_stages(ScheduleConfig(head_epochs=2), epoch, 4) for epoch in range(4)] == [1, 1, 4, 4]
    assert trained_stages(ScheduleConfig(), 0, 4) == 4


def small_network() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 7)
    )


@pytest.mark.parametrize("unfreezes", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_spares_biases_and_norms_and_layer_decay_scales_stages(name: str, unfreezes: bool) -> None:
    model = small_network()
    config = OptimizerConfig.model_validate({"name": name, "weight_decay": 0.1, "layer_decay": 0.5})
    optimizer = make_optimizer([model[0], model[1], model[3]], config, unfreezes)
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    assert [groups[parameter]["weight_decay"] for parameter in model.parameters()] == [0.1, 0, 0, 0, 0.1, 0]
    assert [groups[parameter]["scale"] for parameter in model.parameters()] == [0.25, 0.25, 0.5, 0.5, 1, 1]


def test_the_average_of_weights_follows_by_its_decay() -> None:
    model = small_network()
    average = WeightAverage(model, 0.5)
    began = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    average.update()  # at step 1 the decay is 2/11
    for key, tensor in average.model.state_dict().items():
        moved = 1 - 2 / 11 if key in dict(model.named_parameters()) else 0
        torch.testing.assert_close(tensor.float(), began[key].float() + moved)
    for _ in range(100):
        average.update()
    torch.testing.assert_close(average.model.state_dict()["3.bias"], model.state_dict()["3.bias"])


def test_macro_f1_is_scikit_learns_over_the_classes_that_have_rows() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 6, 300), generator.integers(0, 7, 300)
    expected = sklearn.metrics.f1_score(labels, predicted, labels=range(6), average="macro")
    assert macro_f1(labels, predicted) == pytest.approx(expected)


def loss_of(weight: torch.Tensor = WEIGHT, **config: float) -> Loss:
    return Loss(LossConfig.model_validate({"label_smoothing": 0} | config), weight.numpy(), torch.device("cpu"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_give_torchs_loss(smoothing: float) -> None:
    expected = F.cross_entropy(LOGITS, LABELS, weight=WEIGHT, label_smoothing=smoothing)
    loss = loss_of(label_smoothing=smoothing)
    got = loss.loss(LOGITS, loss.targets(Batch(torch.empty(20), LABELS, None)))
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_losses_by_hand() -> None:
    """Soft labels; focal loss, for a label with probability p (1 - p)² times the cross-entropy; and distillation."""
    logits, soft = torch.tensor([[0.0, 1.0, 0, 0, 0, 0, 0]]), torch.tensor([[0.25, 0.75, 0, 0, 0, 0, 0]])
    log_sum = math.log(6 + math.e)
    expected = (0.25 * 2 * log_sum + 0.75 * 4 * (log_sum - 1)) / (0.25 * 2 + 0.75 * 4)
    loss = loss_of(torch.tensor([2.0, 4.0, 1, 1, 1, 1, 1]), soft_labels=True)
    assert loss.loss(logits, loss.targets(Batch(torch.empty(1), LABELS[:1], soft))).item() == pytest.approx(expected)

    p = torch.softmax(logits, dim=1)[0, 1].item()
    got = loss_of(torch.ones(7), focal_gamma=2).loss(logits, F.one_hot(torch.tensor([1]), 7).float())
    assert got.item() == pytest.approx((1 - p) ** 2 * -math.log(p), rel=1e-5)

    teachers, loss = torch.rand(20, 7).softmax(dim=1), loss_of(torch.ones(7), distill_weight=0.7)
    targets = loss.targets(Batch(torch.empty(20), LABELS, None))
    mixed = 0.3 * F.cross_entropy(LOGITS, LABELS) - 0.7 * (teachers * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss.loss(LOGITS, targets, teachers).item() == pytest.approx(mixed.item(), rel=1e-5)
