"""Random augmentation of a whole batch at once, on the training device."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from fer_ray.config.schema import AugmentConfig


class Augmentation:
    """Rotation, zoom, shift, mirror image, contrast, brightness and cutout of images, all drawn at once for many rows.

    The geometric changes are one affine map with bilinear interpolation. Pixels from outside the image are 0, the
    dataset's mean grey after ``normalize``. Magnitudes are uniform within the configured limits.

    An epoch has so many ``rows``, on the generator's device. ``size`` is the side of augmented images, else full.
    """

    def __init__(
        self, config: AugmentConfig, rows: int, generator: torch.Generator, full_size: int, size: int | None = None
    ):
        device, side = generator.device, size or full_size
        unit = torch.rand(9, rows, generator=generator, device=device)
        angle, zoom, shift_x, shift_y, contrast, brightness, *middle = unit[:8] * 2 - 1
        mirrored = unit[8] < config.flip
        self._theta: torch.Tensor | None = None
        if config.rotation or config.zoom or config.shift or config.flip or side != full_size:
            angle, scale = angle * math.radians(config.rotation), 1 + zoom * config.zoom
            cos, sin, mirror = scale * torch.cos(angle), scale * torch.sin(angle), 1 - 2 * mirrored.float()
            # Coordinates go from -1 to 1, so the side is 2.
            x, y = shift_x * (2 * config.shift), shift_y * (2 * config.shift)
            self._theta = torch.stack([cos * mirror, sin * mirror, -sin, cos, x, y], dim=1).view(-1, 3, 2)
            identity = torch.eye(2, 3, device=device).unsqueeze(0)
            grid = F.affine_grid(identity, [1, 1, side, side], align_corners=False).view(-1, 2)
            self._grid, self._side = F.pad(grid, (0, 1), value=1.0), side
        factor = (1 + contrast * config.contrast).view(-1, 1, 1, 1)
        self._contrast = factor if config.contrast or config.brightness else None
        self._brightness = (brightness * config.brightness).view(-1, 1, 1, 1)
        self._hole, self._middle = config.cutout, torch.stack(middle, dim=1).unsqueeze(2) if config.cutout else None
        self._centres = (torch.arange(side, device=device) + 0.5) / side * 2 - 1

    def __call__(self, images_bchw: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Return augmented images, B × C × side × side; ``start`` is the number of the first one in the epoch."""
        rows = slice(start, start + len(images_bchw))
        if self._theta is not None:
            theta = self._theta[rows]
            grid = torch.bmm(self._grid.expand(len(theta), -1, -1), theta).view(-1, self._side, self._side, 2)
            images_bchw = F.grid_sample(images_bchw, grid, align_corners=False)
        if self._contrast is not None:
            images_bchw = torch.addcmul(self._brightness[rows], images_bchw, self._contrast[rows])
        if self._middle is not None:
            within = (self._centres - self._middle[rows]).abs_() <= self._hole  # B × 2 × side
            images_bchw = images_bchw.masked_fill((within[:, 0, :, None] & within[:, 1, None])[:, None], 0.0)
        return images_bchw


class Mixing:
    """Mixup, cutmix, or one of them at random, drawn for all steps of an epoch.

    Mixup blends all pixels (Zhang et al., arXiv 1710.09412). Cutmix pastes a box and mixes the targets by its area (Yun
    et al., arXiv 1905.04899). As in both papers, one ratio is drawn for a batch. Each image is mixed with its opposite
    in the batch, whose order is random.
    """

    def __init__(self, config: AugmentConfig, steps: int, random: np.random.Generator):
        self._active = bool(config.mixup or config.cutmix)
        self._blends = random.random(steps) < (0.5 if config.mixup and config.cutmix else bool(config.mixup))
        alphas = np.where(self._blends, config.mixup, config.cutmix)
        self._ratios = random.beta(alphas, alphas) if self._active else alphas
        self._middles = random.random((steps, 2))

    def __call__(
        self, images_bchw: torch.Tensor, targets_bk: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mixed images and target distributions of the batch with this number in the epoch."""
        if not self._active:
            return images_bchw, targets_bk
        ratio = float(self._ratios[step])
        if self._blends[step]:
            images_bchw = images_bchw.lerp(images_bchw.flip(0), 1 - ratio)
        else:
            height, width = images_bchw.shape[2:]
            rows, columns = map(_box, (height, width), (ratio, ratio), self._middles[step])
            pasted = images_bchw.clone()
            pasted[:, :, rows, columns] = images_bchw[:, :, rows, columns].flip(0)
            images_bchw = pasted
            ratio = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return images_bchw, targets_bk.lerp(targets_bk.flip(0), 1 - ratio)


def _box(extent: int, ratio: float, middle: float) -> slice:
    """Return one axis of a box with 1 - ``ratio`` of the area, around ``middle``, 0 to 1, and clipped at the edges."""
    half = round(extent * math.sqrt(1 - ratio)) / 2
    centre = int(middle * extent)
    return slice(max(0, round(centre - half)), min(extent, round(centre + half)))
