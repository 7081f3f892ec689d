"""What every architecture must do."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from fer_ray.config import ModelConfig
from fer_ray.config_files import load_config
from fer_ray.errors import UsageError
from fer_ray.models import architectures, build, first_size
from fer_ray.models.registry import register

NAMES = [architecture.name for architecture in architectures()]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


@pytest.mark.parametrize("size", [48, 64])
def test_logits_shape(name: str, size: int) -> None:
    assert build(ModelConfig(name=name), size)(torch.randn(2, 1, size, size)).shape == (2, 7)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = build(ModelConfig(name=name), 48)
    F.cross_entropy(model(torch.randn(8, 1, 48, 48)), torch.arange(8) % 7).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not without


def test_overfits_one_batch(name: str) -> None:
    model = build(ModelConfig(name=name, dropout=0), 48)
    images, labels = torch.randn(14, 1, 48, 48), torch.arange(14) % 7
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


def test_safetensors_round_trip(name: str, tmp_path: Path) -> None:
    model, other = build(ModelConfig(name=name), 48).eval(), build(ModelConfig(name=name), 48).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.randn(3, 1, 48, 48)
    assert torch.equal(model(images), other(images))


def test_dropout_is_used(name: str) -> None:
    model = build(ModelConfig(name=name, dropout=0.5), 48)
    assert any(isinstance(module, torch.nn.Dropout) and module.p == 0.5 for module in model.modules())


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build(ModelConfig(name="resnet81"), 48)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        register("cnn3", "again")(lambda config, size, num_classes: torch.nn.Identity())


def test_growing_images_by_default_where_the_architecture_takes_them() -> None:
    assert first_size(load_config(None, ["model.name=fast"])) < 1
    assert first_size(load_config(None, ["model.name=cnn3"])) == 1


def test_an_architecture_of_one_size_refuses_growing_images() -> None:
    config = load_config(None, ["model.name=cnn3", "schedule.first_size=0.5"])
    with pytest.raises(UsageError, match=r"first_size = 0\.5: 'cnn3'"):
        first_size(config)


@pytest.mark.parametrize("name", [each.name for each in architectures() if each.any_size])
def test_any_size_holds(name: str) -> None:
    model = build(ModelConfig(name=name), 48)
    assert model(torch.randn(2, 1, 32, 32)).shape == model(torch.randn(2, 1, 48, 48)).shape
