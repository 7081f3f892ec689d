"""Schedules over a run: the learning rate, the image size, and the stages of the network that train."""

import math
from collections.abc import Sequence

from fer_ray.config.schema import ScheduleConfig


def learning_rate_factor(config: ScheduleConfig, step: int, steps: int, accuracies: Sequence[float] = ()) -> float:
    """Return the learning rate at a step, from 0, of the whole run as a fraction of the peak rate, 0 to 1.

    ``one_cycle`` rises linearly over the warm-up and falls linearly to 0 (Smith & Topin, arXiv 1708.07120). ``cosine``
    falls along half a cosine (Loshchilov & Hutter, arXiv 1608.03983). ``step`` and ``plateau`` multiply the rate by
    ``decay`` each time. ``accuracies`` are the validation accuracies of the finished epochs, for ``plateau``.
    """
    if config.name == "step":
        return config.decay ** sum(step >= share * steps for share in config.step_at)
    if config.name == "plateau":
        return config.decay ** _plateaus(accuracies, config.plateau_patience)
    if config.name == "constant":
        return 1.0
    warmup_steps = config.warmup * steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    left = (steps - step) / (steps - warmup_steps)
    return left if config.name == "one_cycle" else (1 - math.cos(math.pi * left)) / 2


def _plateaus(accuracies: Sequence[float], patience: int) -> int:
    """Count the times that ``patience`` epochs in a row brought no better accuracy (Keras' ReduceLROnPlateau)."""
    best, stale, plateaus = -math.inf, 0, 0
    for accuracy in accuracies:
        stale = 0 if accuracy > best else stale + 1
        best = max(best, accuracy)
        if stale == patience:
            stale, plateaus = 0, plateaus + 1
    return plateaus


def image_size(first_size: float, full_size_from: float, progress: float, full_size: int) -> int:
    """Return the side of the training images in pixels, after a fraction ``progress``, 0 to 1, of all epochs.

    The side grows in steps of 8 pixels from ``first_size``, a fraction of the full size, to the full size (progressive
    resizing, as in fast.ai's DAWNBench entry of 2018). Early epochs learn coarse shapes at a fraction of the cost.
    """
    share = min(1.0, progress / full_size_from)
    side = full_size * (first_size + (1 - first_size) * share)
    return full_size if side == full_size else max(8, int(side + 1e-6) // 8 * 8)


def trained_stages(config: ScheduleConfig, epoch: int, stages: int) -> int:
    """Return how many stages of the network, counted from the classifier, train in an epoch (the first is 0).

    At first only the classifier trains. Then one more stage is unfrozen every ``unfreeze_epochs`` (Howard & Ruder,
    arXiv 1801.06146).
    """
    if epoch < config.head_epochs:
        return 1
    if not config.head_epochs or not config.unfreeze_epochs:
        return stages
    return min(stages, 2 + (epoch - config.head_epochs) // config.unfreeze_epochs)
