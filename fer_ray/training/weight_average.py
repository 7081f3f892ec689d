"""An exponential moving average of a network's weights, which generalises better than the last ones."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Follows a network (Polyak & Juditsky 1992; with this warm-up as in TensorFlow's ExponentialMovingAverage).

    The decay of step t is the smaller of ``decay`` and (1 + t) / (10 + t), so that early weights are soon forgotten.
    Batch-norm statistics are averaged too; counters are copied.

    Attributes:
        model: a network with the averaged weights, in evaluation mode.
        steps: updates so far.
    """

    def __init__(self, followed: nn.Module, decay: float):
        self.model = copy.deepcopy(followed).eval().requires_grad_(False)
        self.steps, self._decay, self._followed = 0, decay, followed

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        averaged, present = (list(model.state_dict().values()) for model in (self.model, self._followed))
        floats = [number for number, tensor in enumerate(averaged) if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[n] for n in floats], [present[n] for n in floats], 1 - decay)
        for number in set(range(len(averaged))) - set(floats):
            averaged[number].copy_(present[number])

    def load(self, weights: dict[str, Any], steps: int) -> None:
        """Go on from an average after so many updates."""
        self.model.load_state_dict(weights)
        self.steps = steps
