"""The optimizer over the stages of a network, and the moving average of its weights."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fer_ray.config.schema import OptimizerConfig


def make_optimizer(
    stages: Sequence[nn.Module], config: OptimizerConfig, unfreezes: bool = False
) -> torch.optim.Optimizer:
    """Make the configured optimizer over the stages of a network, from input to output.

    Weight decay applies to weight matrices and kernels, not to biases and norms. Each parameter group has a ``scale``
    by which the learning rate is to be multiplied: ``layer_decay`` to the power of the number of stages between the
    group and the output (Clark et al., arXiv 2003.10555, and BEiT, arXiv 2106.08254). Where the network ``unfreezes``
    stage by stage, each has groups of its own: fused SGD refuses a group in which only some parameters have momentum.
    """
    groups: dict[tuple[int, float, float], dict[str, Any]] = {}
    for number, stage in enumerate(stages):
        scale = config.layer_decay ** (len(stages) - 1 - number)
        for parameter in stage.parameters():
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            key = (number if unfreezes else 0, scale, decay)
            group = groups.setdefault(key, {"params": [], "weight_decay": decay, "scale": scale})
            group["params"].append(parameter)
    rate, momentum = config.learning_rate, config.momentum
    if config.name == "sgd":
        return torch.optim.SGD([*groups.values()], lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind([*groups.values()], lr=rate, betas=(momentum, 0.999), fused=True)


class WeightAverage:
    """The exponential moving average of a network's weights and batch-norm statistics (Polyak & Juditsky 1992).

    The decay at step t is the smaller of ``decay`` and (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage,
    so that early weights are soon forgotten. ``torch.optim.swa_utils.AveragedModel`` would wait for the GPU at each
    step and call an operator twice for each parameter.
    """

    def __init__(self, followed: nn.Module, decay: float):
        self.model = copy.deepcopy(followed).eval().requires_grad_(False)  # with the averaged weights
        self.steps, self._decay = 0, decay  # updates so far
        pairs = list(zip(self.model.state_dict().values(), followed.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged, self._current = [average for average, _ in floats], [current for _, current in floats]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the network's current weights to the average."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)

    def copy_counters(self) -> None:
        """Copy what can't be averaged: batch norm's counters."""
        for average, current in self._counters:
            average.copy_(current)
