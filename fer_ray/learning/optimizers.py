"""Optimizers, and the learning rate as a function of the step."""

import torch
from torch import nn

from fer_ray.config import OptimizerConfig, ScheduleConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Make the configured optimizer; weight decay falls on weight matrices and kernels, not on biases and norms."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True)


def learning_rate_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Return the share, 0 to 1, of the peak learning rate at a step, 0 to ``total_steps`` - 1.

    ``one_cycle`` rises linearly over the warm-up and falls linearly to 0 (Smith & Topin, arXiv 1708.07120).
    """
    if config.name == "constant":
        return 1.0
    warmup_steps = config.warmup * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (total_steps - step) / (total_steps - warmup_steps)


def image_size(first_size: float, full_size_from: float, progress: float, full_size: int) -> int:
    """Return the side, in pixels, of the training images after a share ``progress``, 0 to 1, of all epochs.

    It grows in steps of 8 pixels from ``first_size``, a share of the full size, to the full size (progressive
    resizing, as in fast.ai's DAWNBench entry of 2018): early epochs learn coarse shapes at a fraction of the cost.
    """
    share = min(1.0, progress / full_size_from)
    side = full_size * (first_size + (1 - first_size) * share)
    return full_size if side == full_size else max(8, int(side + 1e-6) // 8 * 8)
