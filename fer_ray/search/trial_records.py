"""The record of a finished trial, and how it is stored in an Optuna study."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial

from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.text import amount, duration
from fer_ray.search.parameters import recall
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.strategy import Strategy

BY_EPOCH, CONTINUES, FOLDER, INTERRUPTED = "by_epoch", "continues", "folder", "interrupted"
"""User attributes of a trial: the first objective after each epoch; number of the interrupted trial that it continues;
its folder's name, if that isn't its number; of a FAIL, that it doesn't count, because another trial continues it."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial. One that was ``interrupted`` from outside doesn't count, and another trial continues it."""

    number: int
    state: str  # ``COMPLETE``, ``PRUNED`` (stopped early) or ``FAIL``
    values: tuple[float, ...] | None  # objectives in the best epoch by the first one; of a pruned trial only that one
    accuracy: float | None  # validation accuracy of the best epoch, as are macro_f1 and images_per_s
    macro_f1: float | None
    images_per_s: float | None  # prediction speed; None if it isn't an objective
    space: str
    params: dict[str, Any]  # searched values by config path
    config: Config
    by_epoch: list[float]  # the first objective after each epoch
    seconds: float | None  # time of all epochs, including those of the trials that it continues; None if interrupted
    error: str | None
    started: datetime | None
    ended: datetime | None  # time of the end; for a trial left by a dead driver, the time of the resume
    folder: str
    continues: int | None = None  # number of the interrupted trial that it continues
    interrupted: bool = False

    @property
    def value(self) -> float | None:
        """The first objective in the best epoch."""
        return max(self.by_epoch, default=None)

    @property
    def epochs(self) -> int:
        """Number of epochs of the configuration; ``len(by_epoch)`` were trained."""
        return self.config.training.epochs

    @property
    def stopped(self) -> str:
        """After which epoch the trial stopped; empty if it is complete."""
        return "" if self.state == "COMPLETE" else f"stopped after epoch {len(self.by_epoch)} of {self.epochs}"

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best value of the first objective, from 1."""
        return 1 + self.by_epoch.index(max(self.by_epoch)) if self.by_epoch else None

    def measured(self, objective: str) -> float | None:
        """Return an objective, by its name, in the best epoch."""
        value: float | None = getattr(self, objective)
        return value


def read_record(trial: FrozenTrial, spaces: Mapping[str, SearchSpace]) -> TrialRecord:
    """Read a finished trial of a study over the given spaces."""
    attributes = trial.user_attrs
    key, drawn, config = recall(trial.params, spaces)
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        values=tuple(trial.values) if trial.values else None,
        space=key,
        params=drawn,
        config=config,
        by_epoch=attributes.get(BY_EPOCH, []),
        **{name: attributes.get(name) for name in (*OBJECTIVES, "seconds", "error")},
        # Optuna writes local times without their zone.
        started=trial.datetime_start and trial.datetime_start.astimezone(UTC),
        ended=trial.datetime_complete and trial.datetime_complete.astimezone(UTC),
        folder=attributes.get(FOLDER, str(trial.number)),
        continues=attributes.get(CONTINUES),
        interrupted=INTERRUPTED in attributes,
    )


def best_record(records: list[TrialRecord]) -> TrialRecord | None:
    """Return the best complete trial by the first objective, the first of equal ones.

    If no trial is complete: the trial with the best epoch among those that were pruned or interrupted, None without an
    epoch. A trial that another one continues doesn't count.
    """
    found = [record for record in records if record.state == "COMPLETE"]
    if not found:
        continued = {record.continues for record in records if record.by_epoch or not record.interrupted}
        stopped = [record for record in records if record.state == "PRUNED" or record.interrupted]
        found = [record for record in stopped if record.by_epoch and record.number not in continued]
    return max(found, key=lambda record: (record.value or 0.0, -record.number), default=None)


def describe(record: TrialRecord, strategy: Strategy) -> str:
    """Return a finished trial as one line."""
    params = ", ".join(f"{path} {short(value)}" for path, value in record.params.items())
    value = "" if record.value is None else f" {strategy.first.write(record.value)}"
    for name, other in zip(strategy.objectives[1:], (record.values or ())[1:], strict=False):
        value += f", {OBJECTIVES[name].named(other)}"
    time_spent = amount(len(record.by_epoch), "epoch")
    time_spent += "" if record.seconds is None else f", {duration(record.seconds)}"
    line = f"trial {record.number} {record.state}{value}: {record.space}, {params}; {time_spent}"
    return f"{line}; {error_line(record.error).rstrip('.')}" if record.error else line


def describe_best(best: TrialRecord, strategy: Strategy) -> str:
    """Return the objectives of the best trial as one line, and whether it was stopped early."""
    measured = [(OBJECTIVES[name], best.measured(name)) for name in strategy.objectives]
    values = ", ".join(objective.named(value) for objective, value in measured if value is not None)
    stopped = f"; {best.stopped}, because no trial is complete" if best.stopped else ""
    return f"trial {best.number}, {values}, {best.space}{stopped}"


def error_line(error: str | None, width: int = 200) -> str:
    """Return the message of an error as one line, without a traceback."""
    lines = (error or "").strip().splitlines() or ["no message"]
    message = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return textwrap.shorten(message, width, placeholder=" …")


def short(value: Any) -> str:
    """Format the value of a parameter for a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
