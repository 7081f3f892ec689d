"""The names of test-time augmentations (TTA). This module doesn't import torch."""

from fer_ray.errors import did_you_mean

ADAPTIVE = "adaptive"
TTA_NAMES = ("none", "flip", "ten_crop", "full", ADAPTIVE)
"""From the fewest views to the most, then ``adaptive``. ``fer_ray.inference.tta`` defines the views."""


def tta_problem(option: str, name: str) -> str | None:
    """Return what is wrong with the name given to an option or argument, or None."""
    if name in TTA_NAMES:
        return None
    known = ", ".join(TTA_NAMES)
    return f"{option} {name}: unknown test-time augmentation.{did_you_mean(name, TTA_NAMES)} Known: {known}."
