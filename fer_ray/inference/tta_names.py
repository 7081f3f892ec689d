"""The names of test-time augmentations (TTA), for those who only pass them on: their views are in torch's part."""

from fer_ray.errors import did_you_mean

ADAPTIVE = "adaptive"
TTA_NAMES = ("none", "flip", "ten_crop", "full", ADAPTIVE)
"""Cheapest first, and the one whose cost depends on the images; views: ``fer_ray.inference.tta``."""


def tta_problem(option: str, name: str) -> str | None:
    """Return what is wrong with a name that was given by an option or argument, or None."""
    if name in TTA_NAMES:
        return None
    known = ", ".join(TTA_NAMES)
    return f"{option} {name}: no such test-time augmentation.{did_you_mean(name, TTA_NAMES)} Known: {known}."
