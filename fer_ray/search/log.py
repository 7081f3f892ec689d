"""What a search notes of its trials: in the study, in its folder and for the user."""

from typing import Any, Protocol

from fer_ray.config.schema import Config
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount, duration
from fer_ray.search.folder import SearchFolder
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study
from fer_ray.search.time_budget import TimeBudget
from fer_ray.search.trial_records import TrialRecord, error_line, short
from fer_ray.search.trial_table import TrialTable


class Watcher(Protocol):
    """Hears of each trial of a search."""

    def began(self, number: int) -> None:
        """A trial has begun to run."""

    def closed(self, record: TrialRecord, best: TrialRecord | None) -> None:
        """A trial was closed; ``best`` is the best one by now."""


class SearchLog:
    """Tells the study what becomes of each trial, keeps the best checkpoint and says a line a trial.

    Args:
        budget: says what the search's time is enough for; None where that has no end.
    """

    def __init__(
        self,
        study: Study,
        folder: SearchFolder,
        bar: ProgressBar,
        running: TrialTable,
        watcher: Watcher,
        budget: TimeBudget | None = None,
    ):
        self._study, self._folder, self._bar, self._running, self._watcher = study, folder, bar, running, watcher
        self._budget = budget
        self._stopped: set[int] = set()
        self._errors: dict[int, str] = {}

    def began(self, number: int, space: str, config: Config) -> None:
        """Note that a trial has begun to run."""
        self._running.began(number, space, config.training.epochs)
        self._watcher.began(number)
        if self._budget:
            self._budget.began(number, config)

    def report(self, number: int, result: dict[str, Any], stopped: bool) -> None:
        """Note what a trial reported: an epoch's ``metrics``, or its ``error``.

        Args:
            stopped: it ends here, though it was not at its end.
        """
        if "error" in result:
            self._errors[number] = result["error"]
            return
        self._study.report(number, result["metrics"])
        self._running.reported(number, result["metrics"])
        self._bar.touch()
        if self._budget and not result["previous"]:
            self._budget.reported(number, result["metrics"])
        if stopped:
            self._stopped.add(number)

    def ended(self, number: int) -> None:
        """Close a trial that reports nothing more."""
        if number in self._errors:
            self._close(self._study.fail(number, self._errors[number]))
        elif number in self._stopped:
            self._close(self._study.prune(number))
        else:
            self._close(self._study.complete(number))

    def crashed(self, number: int, error: object) -> None:
        """Close a trial that failed by an error of its own."""
        self._close(self._study.fail(number, str(error).strip()))

    def lost(self, number: int, error: object) -> None:
        """Close a trial whose process or node was lost; another one goes on with it, if that was not too often."""
        self._close(self._study.lose(number, str(error).strip()))

    def search_stopped(self, interrupted: bool) -> None:
        """Close the trials that ran when the search was stopped.

        Interrupted ones are gone on with by a resume. Those that the time budget stops are PRUNED for good: samplers
        learn from how far they came as from any pruned trial, and each has had what the user gave it. One that had no
        time for an epoch tells nothing, and is begun again by a resume.
        """
        first = self._study.strategy.first.metric
        for number in self._study.running():  # a process that is told to stop may still finish its epoch
            for metrics in self._folder.history(number, first)[self._study.heard(number) :]:
                self._study.report(number, metrics)
        if interrupted:
            self._study.fail_interrupted()
        for number in self._study.running():
            self._close(self._study.stop(number))
        self._folder.keep_best(self._study)
        best = self._study.best()
        if best is not None and best.stopped:
            say(f"No trial trained to its end: {self._folder.best.name}/ is of trial {best.number}, {best.stopped}.")

    def _close(self, record: TrialRecord) -> None:
        self._running.ended(record.number)
        if self._budget:
            self._budget.ended(record.number)
        self._folder.keep_best(self._study)
        best = self._study.best()
        self._watcher.closed(record, best)
        shown = None if best is None or best.reached is None else self._study.strategy.first.write(best.reached)
        self._bar.advance(0 if record.interrupted else 1, f"best {shown}" if shown else "")
        news = "; the best so far" if best and best.number == record.number else ""
        news = "; another trial goes on with it" if record.interrupted else news
        say(describe(record, self._study) + news)


def describe(record: TrialRecord, study: Study) -> str:
    """Return a finished trial as one line."""
    strategy = study.strategy
    drawn = [f"{path} {short(value)}" for path, value in record.params.items()]
    reached = "" if record.value is None else f" {strategy.first.write(record.value)}"
    for name, value in zip(strategy.objectives[1:], (record.values or ())[1:], strict=False):
        reached += f", {OBJECTIVES[name].named(value)}"
    time_spent = amount(len(record.by_epoch), "epoch")
    time_spent += "" if record.seconds is None else f", {duration(record.seconds)}"
    line = f"trial {record.number} {record.state}{reached}: {record.space}, {', '.join(drawn)}; {time_spent}"
    return f"{line}; {error_line(record.error).rstrip('.')}" if record.error else line


def describe_best(best: TrialRecord, strategy: Strategy) -> str:
    """Return what was measured of a search's best trial, and whether that was stopped, as one line."""
    values = [best.reached, *(getattr(best, name) for name in strategy.objectives[1:])]
    named = zip(strategy.objectives, values, strict=True)
    measured = ", ".join(OBJECTIVES[name].named(value) for name, value in named if value is not None)
    stopped = f"; {best.stopped}, as no trial trained to its end" if best.stopped else ""
    return f"trial {best.number}, {measured}, {best.space}{stopped}"
