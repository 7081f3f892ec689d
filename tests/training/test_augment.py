"""Batched augmentation."""

import numpy as np
import pytest
import torch

from fer_ray.config.schema import AugmentConfig
from fer_ray.inference.network import normalize
from fer_ray.training.augment import augment, mix

OFF = AugmentConfig(rotation=0, zoom=0, shift=0, flip=0, contrast=0)


def batch(count: int = 64) -> torch.Tensor:
    """Images with a bright spot left of the centre."""
    images = torch.zeros(count, 1, 48, 48)
    images[:, :, 22:26, 10:14] = 1
    return images


def centre_of_mass(images: torch.Tensor) -> torch.Tensor:
    """Row and column of the bright spot, N × 2."""
    axis = torch.arange(48.0)
    mass = images.sum((1, 2, 3))
    return torch.stack([(images.sum((1, 3)) @ axis) / mass, (images.sum((1, 2)) @ axis) / mass], dim=1)


def run(config: AugmentConfig, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment(images, config, torch.Generator().manual_seed(seed))


def test_normalize() -> None:
    images = torch.randint(0, 256, (10, 48, 48), dtype=torch.uint8)
    scaled = images.float() / 255
    mean, std = scaled.mean().item(), scaled.std().item()
    normal = normalize(images, mean, std)
    assert normal.shape == (10, 1, 48, 48)
    torch.testing.assert_close(normal.squeeze(1), (scaled - mean) / std)


def test_everything_off_changes_nothing() -> None:
    assert torch.equal(run(OFF, batch()), batch())


def test_same_seed_same_images() -> None:
    config = AugmentConfig(contrast=0.3)
    assert torch.equal(run(config, batch(), 1), run(config, batch(), 1))
    assert not torch.equal(run(config, batch(), 1), run(config, batch(), 2))


@pytest.mark.parametrize("rotation", [0, 1e-6], ids=["by flipping", "within the affine map"])
def test_flip_mirrors_its_share(rotation: float) -> None:
    images = batch(2000)
    columns = centre_of_mass(run(OFF.model_copy(update={"flip": 0.3, "rotation": rotation}), images))[:, 1]
    mirrored = columns > 24
    assert 0.26 < mirrored.float().mean() < 0.34
    torch.testing.assert_close(columns[mirrored], torch.full_like(columns[mirrored], 47 - 11.5))


def test_shift_stays_within_its_share_of_the_side() -> None:
    moved = centre_of_mass(run(OFF.model_copy(update={"shift": 0.1}), batch(500))) - torch.tensor([23.5, 11.5])
    assert moved.abs().max() <= 0.1 * 48 + 0.01
    assert moved.abs().max(dim=0).values.min() > 0.08 * 48


def test_rotation_is_rigid_and_within_its_degrees() -> None:
    moved = centre_of_mass(run(OFF.model_copy(update={"rotation": 30}), batch(500))) - 23.5
    radius = moved.norm(dim=1)
    assert (radius - 12).abs().max() < 0.3
    angles = torch.rad2deg(torch.asin(moved[:, 0] / radius))
    assert 25 < angles.abs().max() <= 30.5


def test_zoom_changes_the_size_both_ways() -> None:
    area = run(OFF.model_copy(update={"zoom": 0.2}), batch(500)).sum((1, 2, 3)) / 16
    assert area.min() < 0.8 and area.max() > 1.3
    assert area.min() > 1 / 1.25**2 - 0.05 and area.max() < 1 / 0.75**2


def test_contrast_scales_around_the_mean_grey() -> None:
    factor = run(OFF.model_copy(update={"contrast": 0.4}), batch(500)).amax((1, 2, 3))
    assert 0.6 <= factor.min() < 0.65 and 1.35 < factor.max() <= 1.4


def test_resizing_keeps_the_picture_in_place() -> None:
    small = augment(batch(1), OFF, torch.Generator().manual_seed(0), size=24)
    assert small.shape == (1, 1, 24, 24)
    grown = torch.nn.functional.interpolate(small, size=48, mode="bilinear")
    torch.testing.assert_close(centre_of_mass(grown), centre_of_mass(batch(1)), atol=0.3, rtol=0)


def test_brightness_adds_one_number_an_image() -> None:
    moved = run(OFF.model_copy(update={"brightness": 0.5}), batch(500)) - batch(500)
    assert (moved.amax((1, 2, 3)) - moved.amin((1, 2, 3))).max() < 1e-6
    assert -0.5 <= moved.min() < -0.45 and 0.45 < moved.max() <= 0.5


def test_cutout_makes_a_square_hole_anywhere() -> None:
    images = torch.ones(500, 1, 48, 48)
    holes = run(OFF.model_copy(update={"cutout": 0.25}), images) == 0
    areas = holes.sum((1, 2, 3))
    assert areas.max() in (12 * 12, 12 * 13, 13 * 13)
    assert (areas[:, None] > 0).float().mean() > 0.9 and areas.min() < 60  # those at an edge are cut off
    assert holes.any(dim=0).all()
    rows, columns = holes.any(dim=3).sum(2), holes.any(dim=2).sum(2)
    assert torch.equal(rows * columns, areas.unsqueeze(1))


def mixed(config: AugmentConfig, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one shade each, the number of their class, which is all that is in them."""
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 1, 48, 48)
    return mix(images, torch.eye(7), config, torch.Generator().manual_seed(seed), np.random.default_rng(seed))


def test_mixup_blends_images_as_it_blends_labels() -> None:
    for seed in range(5):
        images, targets = mixed(OFF.model_copy(update={"mixup": 1.0}), seed)
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(7.0))
        assert images.var((1, 2, 3)).max() < 1e-6
        torch.testing.assert_close(targets.sum(1), torch.ones(7))


def test_cutmix_pastes_the_area_that_the_label_says() -> None:
    for seed in range(20):
        images, targets = mixed(OFF.model_copy(update={"cutmix": 1.0}), seed)
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(7.0), rtol=1e-4, atol=1e-4)
        assert all(len(image.unique()) <= 2 for image in images)


def test_both_mixes_take_turns_and_none_changes_nothing() -> None:
    both = OFF.model_copy(update={"mixup": 1.0, "cutmix": 1.0})
    blended = [all(len(image.unique()) == 1 for image in mixed(both, seed)[0]) for seed in range(30)]
    assert 5 < sum(blended) < 25
    images, targets = mixed(OFF)
    assert torch.equal(targets, torch.eye(7)) and len(images.unique()) == 7
