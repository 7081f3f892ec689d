"""Batched augmentation."""

import numpy as np
import pytest
import torch

from fer_ray.config.schema import AugmentConfig
from fer_ray.training.augment import Augmentation, Mixing

OFF = AugmentConfig(rotation=0, zoom=0, shift=0, flip=0, contrast=0)


def batch(count: int = 500) -> torch.Tensor:
    """Images with a bright spot left of the centre."""
    images = torch.zeros(count, 1, 48, 48)
    images[:, :, 22:26, 10:14] = 1
    return images


def centre_of_mass(images: torch.Tensor) -> torch.Tensor:
    """Row and column of the bright spot, N × 2."""
    axis = torch.arange(48.0)
    mass = images.sum((1, 2, 3))
    return torch.stack([(images.sum((1, 3)) @ axis) / mass, (images.sum((1, 2)) @ axis) / mass], dim=1)


def augmented(images: torch.Tensor, seed: int = 0, size: int | None = None, **changes: float) -> torch.Tensor:
    config = OFF.model_copy(update=changes)
    return Augmentation(config, len(images), torch.Generator().manual_seed(seed), 48, size)(images)


@pytest.mark.parametrize("changes", [{"contrast": 0.3, "cutout": 0.2}, {"rotation": 10.0, "brightness": 0.1}])
def test_the_seed_and_the_row_decide(changes: dict[str, float]) -> None:
    assert torch.equal(augmented(batch()), batch())  # with everything off
    whole = augmented(batch(), 1, **changes)
    assert not torch.equal(whole, augmented(batch(), 2, **changes))
    in_parts = Augmentation(OFF.model_copy(update=changes), 500, torch.Generator().manual_seed(1), 48)
    parts = [in_parts(part, start) for part, start in zip(batch().split(200), (0, 200, 400), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_flip_mirrors_its_share() -> None:
    columns = centre_of_mass(augmented(batch(2000), flip=0.3))[:, 1]
    mirrored = columns > 24
    assert 0.26 < mirrored.float().mean() < 0.34
    torch.testing.assert_close(columns[mirrored], torch.full_like(columns[mirrored], 47 - 11.5))


def test_shift_and_rotation_stay_within_their_limits() -> None:
    moved = centre_of_mass(augmented(batch(), shift=0.1)) - torch.tensor([23.5, 11.5])
    assert moved.abs().max() <= 0.1 * 48 + 0.01
    assert moved.abs().max(dim=0).values.min() > 0.08 * 48
    moved = centre_of_mass(augmented(batch(), rotation=30)) - 23.5
    radius = moved.norm(dim=1)
    assert (radius - 12).abs().max() < 0.3
    assert 25 < torch.rad2deg(torch.asin(moved[:, 0] / radius)).abs().max() <= 30.5


def test_zoom_contrast_and_brightness_go_both_ways() -> None:
    area = augmented(batch(), zoom=0.2).sum((1, 2, 3)) / 16
    assert 1 / 1.25**2 - 0.05 < area.min() < 0.8 and 1.3 < area.max() < 1 / 0.75**2

    factor = augmented(batch(), contrast=0.4).amax((1, 2, 3))
    assert 0.6 <= factor.min() < 0.65 and 1.35 < factor.max() <= 1.4
    moved = augmented(batch(), brightness=0.5) - batch()
    assert (moved.amax((1, 2, 3)) - moved.amin((1, 2, 3))).max() < 1e-6
    assert -0.5 <= moved.min() < -0.45 and 0.45 < moved.max() <= 0.5


def test_resizing_keeps_the_picture_in_place() -> None:
    small = augmented(batch(1), size=24)
    assert small.shape == (1, 1, 24, 24)
    grown = torch.nn.functional.interpolate(small, size=48, mode="bilinear")
    torch.testing.assert_close(centre_of_mass(grown), centre_of_mass(batch(1)), atol=0.3, rtol=0)


def test_cutout_makes_a_square_hole_anywhere() -> None:
    holes = augmented(torch.ones(500, 1, 48, 48), cutout=0.25) == 0
    areas = holes.sum((1, 2, 3))
    assert areas.max() in (12 * 12, 12 * 13, 13 * 13)
    assert (areas > 0).float().mean() > 0.9 and areas.min() < 60  # holes at an edge are clipped
    assert holes.any(dim=0).all()
    rows, columns = holes.any(dim=3).sum(2), holes.any(dim=2).sum(2)
    assert torch.equal(rows * columns, areas.unsqueeze(1))


def mixed(**changes: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """30 batches of seven one-coloured images whose shade is the number of their class."""
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 1, 48, 48)
    mix = Mixing(OFF.model_copy(update=changes), 30, np.random.default_rng(0))
    return [mix(images, torch.eye(7), step) for step in range(30)]


@pytest.mark.parametrize("changes", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}], ids=str)
def test_images_are_mixed_as_their_targets_say(changes: dict[str, float]) -> None:
    batches = mixed(**changes)
    for images, targets in batches:
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(7.0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(targets.sum(1), torch.ones(7))
    blended = sum(all(len(image.unique()) == 1 for image in images) for images, _ in batches)
    assert {"mixup": blended == 30, "cutmix": blended < 5, "mixup cutmix": 5 < blended < 25}[" ".join(changes)]
    assert len({tuple(targets[0].tolist()) for _, targets in batches}) > 20
    assert all(torch.equal(targets, torch.eye(7)) and len(images.unique()) == 7 for images, targets in mixed())
