"""Random augmentation of a whole batch at once, on the training device."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from fer_ray.config.schema import AugmentConfig


class EpochRandom:
    """Random generators of one epoch.

    The run's seed, the epoch and the rank alone determine their state, so a run can resume at any epoch.

    Attributes:
        generator: a generator on the device, for the order of the rows and the augmentation.
        random: a numpy generator.
    """

    def __init__(self, seed: int, epoch: int, rank: int, device: torch.device):
        own = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
        torch.manual_seed(own)  # dropout
        self.generator = torch.Generator(device).manual_seed(own)
        self.random = np.random.default_rng(own)


def augment(
    images_bchw: torch.Tensor, config: AugmentConfig, generator: torch.Generator, size: int | None = None
) -> torch.Tensor:
    """Rotate, zoom, shift and mirror each image, change its contrast and brightness, and erase a square, at random.

    The geometric changes are one affine map with bilinear interpolation. Pixels from outside the image are 0, the
    dataset's mean grey after ``normalize``. Magnitudes are uniform within the configured limits.

    Args:
        images_bchw: normalised images, B × C × H × W.
        config: the limits of each change.
        generator: a generator on the images' device.
        size: side of the returned images; None keeps the side.
    """

    def uniform(limit: float) -> torch.Tensor:
        unit = torch.rand(len(images_bchw), generator=generator, device=images_bchw.device)
        return (unit * 2 - 1) * limit

    side = size or images_bchw.shape[-1]
    if config.rotation or config.zoom or config.shift or side != images_bchw.shape[-1]:
        angle = uniform(math.radians(config.rotation))
        scale = 1 + uniform(config.zoom)
        mirror = 1 - 2 * _chosen(images_bchw, config.flip, generator)
        # affine_grid's coordinates go from -1 to 1, so the side is 2.
        shift_x, shift_y = uniform(2 * config.shift), uniform(2 * config.shift)
        cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
        theta = torch.stack([cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [*images_bchw.shape[:2], side, side], align_corners=False)
        images_bchw = F.grid_sample(images_bchw, grid, align_corners=False)
    elif config.flip:
        flipped = _chosen(images_bchw, config.flip, generator).bool().view(-1, 1, 1, 1)
        images_bchw = torch.where(flipped, images_bchw.flip(3), images_bchw)
    if config.contrast:
        images_bchw = images_bchw * (1 + uniform(config.contrast)).view(-1, 1, 1, 1)
    if config.brightness:
        images_bchw = images_bchw + uniform(config.brightness).view(-1, 1, 1, 1)
    if config.cutout:
        middle_x, middle_y = uniform(1), uniform(1)
        hole = _within(middle_y, config.cutout, side).unsqueeze(2) & _within(middle_x, config.cutout, side).unsqueeze(1)
        images_bchw = images_bchw.masked_fill(hole.unsqueeze(1), 0.0)
    return images_bchw


def mix(
    images_bchw: torch.Tensor,
    targets_bk: torch.Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    random: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image and its target with another of the batch, by mixup, cutmix, or one of them at random.

    Mixup blends all pixels (Zhang et al., arXiv 1710.09412). Cutmix pastes a box and mixes the targets by its area (Yun
    et al., arXiv 1905.04899). As in both papers, one mixing ratio is drawn for the whole batch.

    Args:
        images_bchw: normalised images, B × C × H × W.
        targets_bk: target distributions, B × K.
        config: ``mixup`` and ``cutmix``; with both 0 nothing is mixed.
        generator: a generator on the images' device, for the pairs.
        random: a generator for ratios and boxes.
    """
    ways = [way for way in (config.mixup, config.cutmix) if way]
    if not ways:
        return images_bchw, targets_bk
    blends = bool(config.mixup) and (len(ways) == 1 or random.random() < 0.5)
    alpha = config.mixup if blends else config.cutmix
    share = random.beta(alpha, alpha)
    partners = torch.randperm(len(images_bchw), generator=generator, device=images_bchw.device)
    if blends:
        images_bchw = images_bchw.lerp(images_bchw[partners], 1 - share)
    else:
        height, width = images_bchw.shape[2:]
        rows, columns = (_box(extent, share, random) for extent in (height, width))
        pasted = images_bchw.clone()
        pasted[:, :, rows, columns] = images_bchw[partners, :, rows, columns]
        images_bchw = pasted
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return images_bchw, targets_bk.lerp(targets_bk[partners], 1 - share)


def _box(extent: int, share: float, random: np.random.Generator) -> slice:
    """Return one axis of a box with 1 - ``share`` of the area, at a random position and clipped at the edges."""
    half = round(extent * math.sqrt(1 - share)) / 2
    middle = random.integers(extent)
    return slice(max(0, round(middle - half)), min(extent, round(middle + half)))


def _within(middle: torch.Tensor, width: float, side: int) -> torch.Tensor:
    """Return a mask of the pixels along an axis that lie inside a square, B × side.

    Args:
        middle: centre of the square, B, -1 to 1.
        width: width of the square as a fraction of the side.
        side: side in pixels.
    """
    centres = (torch.arange(side, device=middle.device) + 0.5) / side * 2 - 1
    return (centres - middle.unsqueeze(1)).abs() <= width


def _chosen(images_bchw: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    unit = torch.rand(len(images_bchw), generator=generator, device=images_bchw.device)
    return (unit < probability).to(images_bchw.dtype)
