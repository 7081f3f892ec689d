"""The running trials of a search: a line each, below the progress bar on a terminal and in a log."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fer_ray.console.text import duration
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

_LINES_BESIDE = 8
_MOST_LINES = 16


@dataclass
class _Running:
    space: str
    epochs: int
    epoch: int = 0
    last: float | None = None
    best: float | None = None
    seconds: float = 0.0
    reported: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch, if each takes as long as the mean epoch so far; None before the first."""
        if not self.epoch:
            return None
        ahead = (self.epochs - self.epoch) * self.seconds / self.epoch
        return max(0.0, ahead - (time.monotonic() - self.reported))


class TrialTable:
    """Progress and first objective of each running trial."""

    def __init__(self, objective: SearchMetric = OBJECTIVES["accuracy"]) -> None:
        self._objective = objective
        self._trials: dict[int, _Running] = {}

    def began(self, number: int, space: str, epochs: int) -> None:
        """Note that a trial with this number of epochs has started."""
        self._trials[number] = _Running(space, epochs)

    def reported(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Note the metrics of an epoch, as ``fit`` reports them."""
        trial, value = self._trials[number], metrics[self._objective.metric]
        trial.epoch, trial.last, trial.best = int(metrics["epoch"]), value, max(value, trial.best or value)
        trial.seconds += metrics["seconds"]
        trial.reported = time.monotonic()

    def ended(self, number: int) -> None:
        """Forget a trial that has ended; ignore one that never started."""
        self._trials.pop(number, None)

    def lines(self) -> list[str]:
        """Return a line per trial; only of the first ones if there are many."""
        return self._lines(_MOST_LINES)

    def facts(self) -> list[dict[str, Any]]:
        """Return the numbers of each trial for the JSON log; before the first epoch its metrics are null."""
        return [
            {
                "trial": number,
                **{name: getattr(trial, name) for name in ("space", "epoch", "epochs", "last", "best", "seconds_left")},
            }
            for number, trial in self._trials.items()
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as many lines as fit."""
        lines = self._lines(max(1, console.height - _LINES_BESIDE))
        yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)

    def _lines(self, most: int) -> list[str]:
        lines = []
        for number, trial in self._trials.items():
            line = f"trial {number}: epoch {trial.epoch}/{trial.epochs}"
            if trial.last is not None and trial.best is not None and trial.seconds_left is not None:
                last, best = self._objective.write(trial.last), self._objective.write(trial.best)
                line += f", {last}, best {best}, {duration(trial.seconds_left)} left"
            lines.append(f"{line}, {trial.space}")
        return lines[:most] + [f"and {len(lines) - most} more"] * (len(lines) > most)
