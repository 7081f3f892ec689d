"""Say how many epochs and trials fit into the time budget, once the first epochs are timed."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.console.progress import say
from fer_ray.console.text import amount, duration
from fer_ray.search.trial_cost import epoch_areas

_PATIENCE = 3
"""Epochs of a trial after which the estimate no longer waits for trials that should run beside it."""


class TimeBudget:
    """Says once, when each running trial has an epoch, how many epochs and trials fit into the time.

    Args:
        seconds: time budget from now on.
        trials: number of trials to run.
        at_once: number of trials that run at once.
        size: side of the dataset's images, in pixels.
    """

    def __init__(self, seconds: float, trials: int, at_once: int, size: int):
        self._seconds, self._trials, self._at_once, self._size = seconds, trials, at_once, size
        self._is_said = False
        self._areas: dict[int, list[int]] = {}
        self._timed: dict[int, tuple[float, int]] = {}  # seconds and area of an image, summed over epochs so far

    def began(self, number: int, config: Config) -> None:
        """Note that a trial has started."""
        self._areas[number] = epoch_areas(config, self._size)

    def ended(self, number: int) -> None:
        """Forget a trial that has ended."""
        self._areas.pop(number, None)

    def reported(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Note the metrics of an epoch, as ``fit`` reports them."""
        seconds, area = self._timed.get(number, (0.0, 0))
        self._timed[number] = seconds + metrics["seconds"], area + self._areas[number][int(metrics["epoch"]) - 1]
        alone = len(self._areas) < self._at_once and metrics["epoch"] < _PATIENCE
        if self._is_said or alone or not self._areas.keys() <= self._timed.keys():
            return
        rates = {trial: self._timed[trial][0] / self._timed[trial][1] for trial in self._areas}
        slowest = max(([rates[trial] * area for area in areas] for trial, areas in self._areas.items()), key=sum)
        text = enough_for(self._seconds, self._trials, slowest, self._at_once)
        say(f"Time budget of {duration(self._seconds)}: {text}")
        self._is_said = True


def enough_for(seconds: float, trials: int, epochs: Sequence[float], at_once: int) -> str:
    """Say how much fits into a time, and which options would let everything fit.

    Args:
        seconds: available time.
        trials: number of trials to run.
        epochs: seconds of each epoch of the slowest trial, in order.
        at_once: number of trials that run at once.
    """
    whole, planned = sum(epochs), len(epochs)
    rounds = math.ceil(trials / at_once)
    run = f"an epoch takes {duration(whole / planned)} on average with {amount(at_once, 'trial')} at once (measured)"
    if rounds * whole <= seconds:
        return f"{run}. The time is enough for all {amount(trials, 'trial')} of {amount(planned, 'epoch')}."
    complete = min(trials, at_once * int(seconds / whole))
    allows = f"{complete} of {amount(trials, 'trial')} of {amount(planned, 'epoch')}, if none stops early"
    if not complete:
        reach = sum(so_far <= seconds for so_far in accumulate(epochs))
        allows = f"{reach} of the {amount(planned, 'epoch')} of a trial, so no trial completes"
    fitting = [f"--time-budget {math.ceil(rounds * whole / 60)}m"]
    if fit := int(seconds / rounds / (whole / planned)):
        fitting.insert(0, f"--set training.epochs={fit}")
    return f"{run}. The time is enough for {allows}. To fit {amount(trials, 'trial')}: {', or '.join(fitting)}."
