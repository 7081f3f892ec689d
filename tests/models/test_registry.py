"""What every architecture must do."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision.ops import StochasticDepth

from fer_ray.config.files import load_config
from fer_ray.config.schema import ModelConfig
from fer_ray.errors import UsageError
from fer_ray.models import architectures, build, find, first_size, stages

NAMES = [architecture.name for architecture in architectures()]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


def images_for(name: str, count: int) -> torch.Tensor:
    """Draw a batch, of smaller images where the architecture takes them: residual networks are slow on a CPU."""
    side = 32 if find(name).any_size else 48
    return torch.randn(count, 1, side, side)


@pytest.mark.parametrize("size", [48, 64])
def test_logits_shape(name: str, size: int) -> None:
    model = build(ModelConfig(name=name), size, num_classes=5).eval()
    sides = [size, 16] if find(name).any_size else [size]
    with torch.inference_mode():
        for side in sides:
            assert model(torch.randn(2, 1, side, side)).shape == (2, 5)


def test_every_parameter_gets_a_gradient_and_one_batch_is_overfitted(name: str) -> None:
    model, images, labels = build(ModelConfig(name=name, dropout=0), 48), images_for(name, 7), torch.arange(7)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        if step == 0:
            assert [key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []
        optimizer.step()
        if loss.item() < 0.5:  # of ln 7 = 1.95 for equal probabilities
            break
    assert loss.item() < 0.5


def test_safetensors_round_trip(name: str, tmp_path: Path) -> None:
    model, other = build(ModelConfig(name=name), 48).eval(), build(ModelConfig(name=name), 48).eval()
    images = images_for(name, 2)
    with torch.inference_mode():
        expected, fresh = model(images), other(images)
        assert not torch.equal(fresh, expected)
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other(images), expected)


def test_dropout_is_used(name: str) -> None:
    images = images_for(name, 4)
    with torch.inference_mode():
        for dropout in (0.0, 0.5):
            model = build(ModelConfig(name=name, dropout=dropout), 48)
            for module in model.modules():  # the only other thing of chance
                module.train(not isinstance(module, StochasticDepth))
            assert torch.equal(model(images), model(images)) == (dropout == 0)


def test_stages_hold_every_parameter_once_and_end_in_the_classifier(name: str) -> None:
    for config in [ModelConfig(name=name), ModelConfig(name=name, input_size=64)]:
        model = build(config, 48, num_classes=5)
        parts = stages(name, model)
        held = [id(weights) for stage in parts for module in stage for weights in module.parameters()]
        assert sorted(held) == sorted(map(id, model.parameters()))
        assert all(any(list(module.parameters()) for module in stage) for stage in parts)
        (classifier,) = parts[-1]
        assert {weights.shape[0] for weights in classifier.parameters()} == {5}
        last = list(model.named_parameters())[-1][1]
        assert any(weights is last for weights in classifier.parameters())


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build(ModelConfig(name="resnet81"), 48)
    with pytest.raises(UsageError, match="Did you mean 'lenet'"):
        stages("lenett", torch.nn.Identity())


@pytest.mark.parametrize(
    ("options", "grows"),
    [
        (["model.name=fast"], True),
        (["model.name=cnn3"], False),
        (["model.name=fast", "model.input_size=64"], False),  # all are enlarged anyway
        (["model.name=cnn3", "model.input_size=64", "schedule.first_size=0.5"], True),
    ],
)
def test_images_grow_where_that_saves_time(options: list[str], grows: bool) -> None:
    assert (first_size(load_config(None, options)) < 1) == grows


def test_sizes_that_an_architecture_refuses() -> None:
    with pytest.raises(UsageError, match=r"first_size = 0\.5: 'cnn3'"):
        first_size(load_config(None, ["model.name=cnn3", "schedule.first_size=0.5"]))
    with pytest.raises(UsageError, match=r"input_size = 40: below the images' side of 48"):
        build(ModelConfig(name="fast", input_size=40), 48)


def test_one_size_suits_all_where_images_are_enlarged() -> None:
    model = build(ModelConfig(name="lenet", input_size=64), 48).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 1, 48, 48)).shape == model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
