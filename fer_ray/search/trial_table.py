"""The running trials of a search: a line each, below the progress bar on a terminal and in a log."""

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fer_ray.console.text import duration
from fer_ray.search.study import Study

_LINES_BESIDE = 8
_MOST_LINES = 16


class TrialTable:
    """Progress and first objective of each running trial of a study."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def lines(self, most: int = _MOST_LINES) -> list[str]:
        """Return a line per trial; only of the first ones if there are many."""
        write, lines = self._study.strategy.first.write, []
        for trial in list(self._study.running.values()):
            line = f"trial {trial.number}: epoch {len(trial.by_epoch)}/{trial.epochs}"
            if (left := trial.seconds_left) is not None:
                line += f", {write(trial.by_epoch[-1])}, best {write(max(trial.by_epoch))}, {duration(left)} left"
            lines.append(f"{line}, {trial.space}")
        return lines[:most] + [f"and {len(lines) - most} more"] * (len(lines) > most)

    def facts(self) -> list[dict[str, Any]]:
        """Return the numbers of each trial for the JSON log; before the first epoch its metrics are null."""
        return [
            {
                "trial": trial.number,
                "space": trial.space,
                "epoch": len(trial.by_epoch),
                "epochs": trial.epochs,
                "last": trial.by_epoch[-1] if trial.by_epoch else None,
                "best": max(trial.by_epoch, default=None),
                "seconds_left": trial.seconds_left,
            }
            for trial in list(self._study.running.values())
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as many lines as fit."""
        lines = self.lines(max(1, console.height - _LINES_BESIDE))
        yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)
