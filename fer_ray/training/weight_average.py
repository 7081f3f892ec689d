"""An exponential moving average of a network's weights, which often generalises better than the last weights."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The average of a network's weights over the steps (Polyak & Juditsky 1992).

    The decay at step t is the smaller of ``decay`` and (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage,
    so that early weights are soon forgotten. Batch-norm statistics are averaged too. Counters are copied.

    Attributes:
        model: a network with the averaged weights, in evaluation mode.
        steps: number of updates so far.
    """

    def __init__(self, followed: nn.Module, decay: float):
        self.model = copy.deepcopy(followed).eval().requires_grad_(False)
        self.steps, self._decay, self._followed = 0, decay, followed

    @torch.no_grad()
    def update(self) -> None:
        """Add the network's current weights to the average."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        averaged, present = (list(model.state_dict().values()) for model in (self.model, self._followed))
        floats = [number for number, tensor in enumerate(averaged) if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[n] for n in floats], [present[n] for n in floats], 1 - decay)
        for number in set(range(len(averaged))) - set(floats):
            averaged[number].copy_(present[number])

    def load(self, weights: dict[str, Any], steps: int) -> None:
        """Resume from an average after a number of updates."""
        self.model.load_state_dict(weights)
        self.steps = steps
