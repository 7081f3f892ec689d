"""The names of test-time augmentations (TTA). This module doesn't import torch."""

from typing import Literal, get_args

ADAPTIVE = "adaptive"
Tta = Literal["none", "flip", "ten_crop", "full", "adaptive"]
TTA_NAMES: tuple[Tta, ...] = get_args(Tta)
"""From the fewest views to the most, then ``adaptive``. ``fer_ray.inference.tta`` defines the views."""
