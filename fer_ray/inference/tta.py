"""Test-time augmentation (TTA): the views of an image over which probabilities are averaged.

For images of S × S pixels, 48 in FER-2013:

========  =====  ===============================================================================================
name      views  description
========  =====  ===============================================================================================
none          1  the image
flip          2  the image and its mirror image
ten_crop     10  five windows of side 11/12 S, rounded (44 pixels): the corners and the centre, which starts
                 (S - side) // 2 pixels from the top and the left; and the mirror image of each (Krizhevsky 2012)
full         36  the image rotated by -6°, 0° and 6° about its centre; of each the whole image and the five windows;
                 and the mirror image of each
adaptive   1-12  the image; its mirror image and the views of ``ten_crop`` are added if the probabilities of the two
                 most probable labels differ by less than ``UNSURE``
========  =====  ===============================================================================================

Windows are resized to S × S by bilinear interpolation, also for networks of one image size. Rotation is bilinear too;
pixels from outside the image are 0, the dataset's mean grey after ``normalize``, as in training.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from fer_ray.config.tta_names import ADAPTIVE

_WINDOW = 11 / 12
_TURNS = (-6.0, 0.0, 6.0)


def _full(images_bchw: torch.Tensor) -> Iterator[torch.Tensor]:
    for degrees in _TURNS:
        turned = _turn(images_bchw, degrees) if degrees else images_bchw
        yield from _with_mirror_images([turned, *_windows(turned)])


def _with_mirror_images(views: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    for view in views:
        yield view
        yield view.flip(3)


def _windows(images_bchw: torch.Tensor) -> list[torch.Tensor]:
    size = images_bchw.shape[-1]
    side = round(_WINDOW * size)
    far = size - side
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    windows = (images_bchw[..., top : top + side, left : left + side] for top, left in corners)
    return [F.interpolate(window, size=(size, size), mode="bilinear", align_corners=False) for window in windows]


def _turn(images_bchw: torch.Tensor, degrees: float) -> torch.Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    theta = images_bchw.new_tensor([[cos, -sin, 0], [sin, cos, 0]]).expand(len(images_bchw), 2, 3)
    grid = F.affine_grid(theta, list(images_bchw.shape), align_corners=False)
    return F.grid_sample(images_bchw, grid, align_corners=False)


Views = Callable[[torch.Tensor], Iterator[torch.Tensor]]
"""Yields one batch of normalised images per view, B × C × S × S each."""

VIEWS: dict[str, Views] = {
    "none": lambda images_bchw: iter([images_bchw]),
    "flip": lambda images_bchw: _with_mirror_images([images_bchw]),
    "ten_crop": lambda images_bchw: _with_mirror_images(_windows(images_bchw)),
    "full": _full,
    ADAPTIVE: lambda images_bchw: iter([images_bchw]),
}
"""The views that every image gets, by the name of the test-time augmentation."""

UNSURE = 0.3  # difference of the two highest probabilities, 0 to 1, below which ``adaptive`` adds views


def more_views(images_bchw: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the views that ``adaptive`` adds for images of which it is unsure."""
    yield images_bchw.flip(3)
    yield from VIEWS["ten_crop"](images_bchw)
