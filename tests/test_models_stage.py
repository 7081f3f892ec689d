"""The table of architectures."""

import pytest

from fer_ray.architectures import describe, models
from fer_ray.errors import UsageError
from fer_ray.models import architectures


def test_every_architecture_is_listed_with_what_it_costs() -> None:
    figures = models(speed=False)
    assert [one.name for one in figures] == [one.name for one in architectures()]
    text = describe(figures, "float32")
    assert all(one.summary in text for one in figures)
    assert all(one.infer_per_s is None for one in figures)
    (cnn3,) = models(["cnn3"], speed=False)
    convolutions = [(1, 32, 48), (32, 64, 24), (64, 128, 12)]  # channels in and out, side
    dense = [(128 * 6 * 6, 256), (256, 128), (128, 7)]
    assert cnn3.parameters == sum(9 * i * o + o for i, o, _ in convolutions) + sum(i * o + o for i, o in dense)
    assert cnn3.flops == sum(2 * 9 * i * o * side**2 for i, o, side in convolutions) + sum(2 * i * o for i, o in dense)


def test_speed_is_measured() -> None:
    (one,) = models(["cnn3"])
    assert one.infer_per_s is not None
    assert one.train_per_s is not None
    assert min(one.infer_per_s, one.train_per_s) > 0
    assert "batches of " in describe([one], "float32")


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'fast'"):
        models(["fsat"])
