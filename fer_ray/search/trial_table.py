"""The running trials of a search: a table below the progress bar on a terminal, plain lines in a log."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from fer_ray.console.text import duration
from fer_ray.search.search_metric import OBJECTIVES, SearchMetric

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
        lines = []
        for number, trial in self._trials.items():
            last, best, left = self._cells(trial)
            progress = f", {last}, best {best}, {left} left" if trial.epoch else ""
            lines.append(f"trial {number}: {trial.space}, epoch {trial.epoch}/{trial.epochs}{progress}")
        return lines[:_MOST_LINES] + _more(len(lines) - _MOST_LINES)

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
        """Draw the table with as many rows as fit; a narrow terminal omits the space."""
        if not self._trials:
            return
        names = ["trial", "epoch", "last", "best", "left", *["space"] * (options.max_width >= _NARROW)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in names:
            table.add_column(name, justify="left" if name == "space" else "right", no_wrap=True, overflow="ellipsis")
        shown = max(1, console.height - _LINES_BESIDE)
        for number, trial in list(self._trials.items())[:shown]:
            cells = [str(number), f"{trial.epoch}/{trial.epochs}", *self._cells(trial), trial.space]
            table.add_row(*cells[: len(names)])
        yield table
        yield from _more(len(self._trials) - shown)

    def _cells(self, trial: _Running) -> tuple[str, str, str]:
        """Return the last value, the best value and the time left as text."""
        last, best = ("–" if value is None else self._objective.write(value) for value in (trial.last, trial.best))
        return last, best, "–" if trial.seconds_left is None else duration(trial.seconds_left)


def _more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []
