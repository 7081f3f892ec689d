"""What every architecture must do, and the table of them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from out_of_memory import ERRORS
from safetensors.torch import load_file, save_file
from torchvision.ops import StochasticDepth

from fer_ray import architectures as stage
from fer_ray.architectures import describe, models
from fer_ray.config.files import load_config
from fer_ray.config.schema import ModelConfig
from fer_ray.errors import UsageError
from fer_ray.models import architectures, build, find, first_size, stages

NAMES = [architecture.name for architecture in architectures()]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_and_one_batch_is_overfitted(name: str) -> None:
    torch.manual_seed(0)
    model, labels = build(ModelConfig(name=name, dropout=0), 48), torch.arange(7)
    side = 16 if find(name).any_size else 48  # small, as residual networks are slow on a CPU
    images = torch.randn(7, 1, side, side)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        if step == 0:
            assert [key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []
        optimizer.step()
        if loss.item() < 0.8:  # of ln 7 = 1.95 for equal probabilities
            break
    assert loss.item() < 0.8


def in_training(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    for module in model.modules():
        module.train(not isinstance(module, StochasticDepth))  # the only thing of chance but dropout
    logits: torch.Tensor = model(images)
    return logits


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_shapes_stages_dropout_and_a_safetensors_round_trip(name: str, tmp_path: Path) -> None:
    one = build(ModelConfig(name=name, dropout=0.5), 48, num_classes=5).eval()
    with torch.device("meta"):
        other = build(ModelConfig(name=name, dropout=0), 48, num_classes=5).eval()
        enlarging = build(ModelConfig(name=name, input_size=64), 48, num_classes=5).eval()
        assert all(enlarging(torch.empty(2, 1, side, side)).shape == (2, 5) for side in (32, 48))
    sides = [16, 31, 48] if find(name).any_size else [48]
    for side in sides:
        assert one(torch.randn(2, 1, side, side)).shape == (2, 5)

    for model in (one, enlarging):
        parts = stages(name, model)
        held = [id(weights) for stage in parts for module in stage for weights in module.parameters()]
        assert sorted(held) == sorted(map(id, model.parameters()))
        assert all(any(list(module.parameters()) for module in stage) for stage in parts)
        (classifier,) = parts[-1]
        assert {weights.shape[0] for weights in classifier.parameters()} == {5}
        assert any(list(model.parameters())[-1] is weights for weights in classifier.parameters())

    images = torch.randn(4, 1, sides[0], sides[0])
    save_file(one.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    assert torch.equal(other(images), one(images))
    assert not torch.equal(in_training(one, images), in_training(one, images))
    assert torch.equal(in_training(other, images), in_training(other, images))


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


def test_what_an_architecture_refuses() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build(ModelConfig(name="resnet81"), 48)
    with pytest.raises(UsageError, match="has no ImageNet stem"):
        build(ModelConfig(name="fast", stem="imagenet"), 48)
    with pytest.raises(UsageError, match=r"input_size = 40: below the images' side of 48"):
        build(ModelConfig(name="fast", input_size=40), 48)
    with pytest.raises(UsageError, match=r"first_size = 0\.5: 'cnn3'"):
        first_size(load_config(None, ["model.name=cnn3", "schedule.first_size=0.5"]))


def test_every_architecture_is_listed_with_what_it_costs() -> None:
    figures = models(speed=False)
    assert [one.name for one in figures] == [one.name for one in architectures()]
    text = describe(figures, torch.float32)
    assert all(one.summary in text and one.infer_per_s is None for one in figures)
    (cnn3,) = (one for one in figures if one.name == "cnn3")
    convolutions = [(1, 32, 48), (32, 64, 24), (64, 128, 12)]  # channels in and out, side
    dense = [(128 * 6 * 6, 256), (256, 128), (128, 7)]
    assert cnn3.parameters == sum(9 * i * o + o for i, o, _ in convolutions) + sum(i * o + o for i, o in dense)
    assert cnn3.flops == sum(2 * 9 * i * o * side**2 for i, o, side in convolutions) + sum(2 * i * o for i, o in dense)


def test_speed_is_measured() -> None:
    (one,) = models(["lenet"])
    assert one.infer_per_s and one.train_per_s
    assert "batches of " in describe([one], torch.float32)


def test_wrong_calls_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: torch.nn.Module, device: torch.device) -> None:
        raise ERRORS["allocator"]()

    with pytest.raises(UsageError, match="Did you mean 'fast'"):
        models(["fsat"])
    monkeypatch.setattr(stage, "to_device", fail)
    with pytest.raises(UsageError, match=r"^out of memory: .* 'cnn3' can't be measured here\. .* use --no-speed"):
        models(["cnn3"])
