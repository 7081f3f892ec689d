"""Random changes of a whole batch at once, on the training device."""

import math

import torch
import torch.nn.functional as F

from fer_ray.config import AugmentConfig


def normalize(images_bhw: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Turn uint8 images, B × H × W, into float32, B × 1 × H × W, of zero mean and unit deviation over the dataset.

    Args:
        mean: of the training pixels, 0 to 1.
        std: of the training pixels, 0 to 1.
    """
    return images_bhw.unsqueeze(1).float().mul_(1 / (255 * std)).sub_(mean / std)


def augment(
    images_bchw: torch.Tensor, config: AugmentConfig, generator: torch.Generator, size: int | None = None
) -> torch.Tensor:
    """Rotate, zoom, shift, mirror and change the contrast of each image at random.

    Args:
        images_bchw: normalised images, B × C × H × W.
        config: the limits of each change.
        generator: on the images' device.
        size: side of the images returned; None keeps it.

    The geometric changes are one affine map and one bilinear sampling. What comes from outside the image is 0, the
    dataset's mean grey after ``normalize``. Magnitudes are uniform within the configured limits.
    """

    def uniform(limit: float) -> torch.Tensor:
        unit = torch.rand(len(images_bchw), generator=generator, device=images_bchw.device)
        return (unit * 2 - 1) * limit

    side = size or images_bchw.shape[-1]
    if config.rotation or config.zoom or config.shift or side != images_bchw.shape[-1]:
        angle = uniform(math.radians(config.rotation))
        scale = 1 + uniform(config.zoom)
        mirror = 1 - 2 * _chosen(images_bchw, config.flip, generator)
        # A shift by a share of the side is twice that in affine_grid's coordinates, -1 to 1.
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
    return images_bchw


def _chosen(images_bchw: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    unit = torch.rand(len(images_bchw), generator=generator, device=images_bchw.device)
    return (unit < probability).to(images_bchw.dtype)
