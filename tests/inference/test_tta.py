"""The views of test-time augmentation, against a plain recipe that goes image by image with torchvision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints_made import made_checkpoint
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from fer_ray.inference.predictor import Predictor
from fer_ray.inference.tta import VIEWS

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)


def five_crops(image_chw: torch.Tensor) -> list[torch.Tensor]:
    crops = TF.five_crop(image_chw, [44, 44])
    return [F.interpolate(crop[None], (48, 48), mode="bilinear", align_corners=False)[0] for crop in crops]


def views_by_hand(name: str, image_chw: torch.Tensor) -> list[torch.Tensor]:
    views = {"none": [image_chw], "flip": [image_chw], "ten_crop": five_crops(image_chw), "full": []}[name]
    if name == "full":
        for degrees in (-6.0, 0.0, 6.0):
            turned = TF.rotate(image_chw, degrees, InterpolationMode.BILINEAR)
            views += [turned, *five_crops(turned)]
    return views if name == "none" else [*views, *(TF.hflip(view) for view in views)]


@pytest.mark.parametrize("network", ["fast", "cnn3"])
@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flip", 2), ("ten_crop", 10), ("full", 36)])
def test_probabilities_and_spread_equal_a_plain_recipe(name: str, count: int, network: str) -> None:
    member = made_checkpoint(network, temperature=1.7)
    predictions = Predictor(member, tta=name, precision="float32", batch_size=3).predict(IMAGES)
    for number, image in enumerate(IMAGES):
        pixels = (torch.from_numpy(image).float()[None] / 255 - 0.5) / 0.25
        views = torch.stack(views_by_hand(name, pixels))
        assert len(views) == count
        with torch.inference_mode():
            probabilities = (member.model(views) / 1.7).softmax(1).numpy()
        np.testing.assert_allclose(predictions.probabilities[number], probabilities.mean(0), atol=1e-5)
        spread = probabilities[:, predictions.labels[number]].std()
        assert predictions.tta_std[number] == pytest.approx(spread, abs=1e-5)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [16, 31, 48])
def test_views_keep_size_and_range(name: str, size: int) -> None:
    images = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    for view in VIEWS[name](images):
        assert view.shape == images.shape
        assert view.min() >= 0 and view.max() <= 1


def test_views_differ() -> None:
    images = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    views = list(VIEWS["full"](images))
    assert torch.cdist(*(torch.stack(views).flatten(1),) * 2).add(torch.eye(36) * 9).min() > 1
