"""Train, tune and run image classifiers for facial expressions on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.version import VERSION

if TYPE_CHECKING:
    from fer_ray.inference.predictor import Predictor

__version__ = VERSION


def load(
    checkpoints: Path | str | Sequence[Path | str] | None = None, tta: str = "flip", precision: str = "auto"
) -> Predictor:
    """Load one checkpoint, or several as an ensemble, and return its predictor.

    >>> import fer_ray
    >>> fer_ray.load("runs/fast/checkpoint").predict(["face.jpg"]).names
    ['happy']

    Args:
        checkpoints: paths or URLs of checkpoint folders; None for the network in the package.
        tta: which views of each image are averaged; one of ``fer_ray.config.tta_names.TTA_NAMES``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``int8``; see ``Predictor``.

    Raises:
        UsageError: unknown TTA, unknown precision or one that a checkpoint doesn't have, or a checkpoint named twice.
        DataError: a checkpoint can't be read, or the checkpoints differ in image size or labels.
    """
    from fer_ray.inference.predictor import Predictor
    from fer_ray.storage.inputs import as_list
    from fer_ray.weights import SHIPPED_CHECKPOINT

    return Predictor(as_list(checkpoints or SHIPPED_CHECKPOINT), tta, precision)
