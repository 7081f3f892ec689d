"""The table of architectures."""

import pytest
import torch
from out_of_memory import ERRORS

from fer_ray import architectures as stage
from fer_ray.architectures import describe, models
from fer_ray.errors import UsageError
from fer_ray.models import architectures


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


def test_wrong_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: torch.nn.Module, device: torch.device) -> None:
        raise ERRORS["allocator"]()

    with pytest.raises(UsageError, match="Did you mean 'fast'"):
        models(["fsat"])
    monkeypatch.setattr(stage, "to_device", fail)
    with pytest.raises(UsageError, match=r"^out of memory: .* 'cnn3' can't be measured here\. .* use --no-speed"):
        models(["cnn3"])
