"""What changes over a run: the learning rate, the size of the images, and which stages of the network train."""

import math
from collections.abc import Sequence

from fer_ray.config.schema import ScheduleConfig


def learning_rate_factor(
    config: ScheduleConfig, step: int, total_steps: int, accuracies: Sequence[float] = ()
) -> float:
    """Return the share, 0 to 1, of the peak learning rate at a step.

    ``one_cycle`` rises linearly over the warm-up and falls linearly to 0 (Smith & Topin, arXiv 1708.07120), ``cosine``
    falls along half a cosine (Loshchilov & Hutter, arXiv 1608.03983). ``step`` and ``plateau`` lower the rate by
    ``decay`` each time.

    Args:
        config: the schedule.
        step: 0 to ``total_steps`` - 1.
        total_steps: of the whole run.
        accuracies: of validation after each finished epoch, for ``plateau``.
    """
    if config.name == "step":
        return config.decay ** sum(step >= share * total_steps for share in config.step_at)
    if config.name == "plateau":
        return config.decay ** _plateaus(accuracies, config.plateau_patience)
    if config.name == "constant":
        return 1.0
    warmup_steps = config.warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    left = (total_steps - step) / (total_steps - warmup_steps)
    return left if config.name == "one_cycle" else (1 - math.cos(math.pi * left)) / 2


def _plateaus(accuracies: Sequence[float], patience: int) -> int:
    """Count how often an accuracy stayed at or below the best before it for ``patience`` epochs (Keras'
    ReduceLROnPlateau)."""
    best, stale, plateaus = -math.inf, 0, 0
    for accuracy in accuracies:
        stale = 0 if accuracy > best else stale + 1
        best = max(best, accuracy)
        if stale == patience:
            stale, plateaus = 0, plateaus + 1
    return plateaus


def image_size(first_size: float, full_size_from: float, progress: float, full_size: int) -> int:
    """Return the side, in pixels, of the training images after a share ``progress``, 0 to 1, of all epochs.

    It grows in steps of 8 pixels from ``first_size``, a share of the full size, to the full size (progressive
    resizing, as in fast.ai's DAWNBench entry of 2018): early epochs learn coarse shapes at a fraction of the cost.
    """
    share = min(1.0, progress / full_size_from)
    side = full_size * (first_size + (1 - first_size) * share)
    return full_size if side == full_size else max(8, int(side + 1e-6) // 8 * 8)


def trained_stages(config: ScheduleConfig, epoch: int, stages: int) -> int:
    """Return how many stages of the network, counted from the classifier, train in an epoch (0 the first).

    Only the classifier at first, then one stage more every ``unfreeze_epochs`` (Howard & Ruder, arXiv 1801.06146).
    """
    if epoch < config.head_epochs:
        return 1
    if not config.head_epochs or not config.unfreeze_epochs:
        return stages
    return min(stages, 2 + (epoch - config.head_epochs) // config.unfreeze_epochs)
