"""The running trials of a search: a table below the progress bar on a terminal, plain lines in a log."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from fer_ray.console.text import duration
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric
from fer_ray.training.run_folder import Metrics

_NARROW = 62
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


class TrialTable:
    """Progress and first objective of each running trial."""

    def __init__(self, objective: SearchMetric = OBJECTIVES["accuracy"]) -> None:
        self._objective = objective
        self._trials: dict[int | str, _Running] = {}

    def began(self, number: int | str, space: str, epochs: int) -> None:
        """Note that a trial with this number of epochs has started."""
        self._trials[number] = _Running(space, epochs)

    def reported(self, number: int | str, metrics: Metrics) -> None:
        """Note the metrics of an epoch, as ``fit`` reports them."""
        trial = self._trials[number]
        trial.epoch, trial.last = int(metrics["epoch"]), metrics[self._objective.metric]
        trial.best = trial.last if trial.best is None else max(trial.best, trial.last)
        trial.seconds += metrics["seconds"]
        trial.reported = time.monotonic()

    def ended(self, number: int | str) -> None:
        """Forget a trial that has ended; ignore one that never started."""
        self._trials.pop(number, None)

    def lines(self) -> list[str]:
        """Return a line per trial; only of the first ones if there are many."""
        lines = [
            f"trial {number}: {trial.space}, epoch {trial.epoch}/{trial.epochs}"
            + (
                f", {self._write(trial.last)}, best {self._write(trial.best)}, {_left(trial)} left"
                if trial.epoch
                else ""
            )
            for number, trial in self._trials.items()
        ]
        return lines[:_MOST_LINES] + _more(len(lines) - _MOST_LINES)

    def facts(self) -> list[dict[str, Any]]:
        """Return the numbers of each trial for the JSON log; before the first epoch its metrics are null."""
        return [
            {
                "trial": number,
                "space": trial.space,
                "epoch": trial.epoch,
                "epochs": trial.epochs,
                "last": trial.last,
                "best": trial.best,
                "seconds_left": _seconds_left(trial) if trial.epoch else None,
            }
            for number, trial in self._trials.items()
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table with as many rows as fit; a narrow terminal omits the space."""
        if not self._trials:
            return
        is_wide = options.max_width >= _NARROW
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("trial", "epoch", "last", "best", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        if is_wide:
            table.add_column("space", no_wrap=True, overflow="ellipsis")
        shown = max(1, console.height - _LINES_BESIDE)
        for number, trial in list(self._trials.items())[:shown]:
            left = _left(trial) if trial.epoch else "–"
            cells = [
                str(number),
                f"{trial.epoch}/{trial.epochs}",
                self._write(trial.last),
                self._write(trial.best),
                left,
            ]
            table.add_row(*cells, *[trial.space] * is_wide)
        yield table
        yield from map(Text, _more(len(self._trials) - shown))

    def _write(self, value: float | None) -> str:
        return "–" if value is None else self._objective.write(value)


def _left(trial: _Running) -> str:
    return duration(_seconds_left(trial))


def _seconds_left(trial: _Running) -> float:
    """Return the seconds until the last epoch of a trial, if each takes as long as the mean epoch so far."""
    ahead = (trial.epochs - trial.epoch) * trial.seconds / trial.epoch
    return max(0.0, ahead - (time.monotonic() - trial.reported))


def _more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []
