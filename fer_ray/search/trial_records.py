"""What is known of a finished trial, and how it lies in an Optuna study."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, Trial

from fer_ray.config.paths import value_at
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.search.parameters import recall
from fer_ray.search.search_metric import OBJECTIVES

BY_EPOCH = "by_epoch"
"""User attribute of a trial: the first objective by epoch, where several objectives leave no intermediate values."""
CONTINUES = "continues"
"""User attribute: the number of the interrupted trial that this one goes on with."""
FAILURES = "failures"
"""User attribute: how often the process or node of those before it was lost."""
INTERRUPTED = "interrupted"
"""User attribute of a FAIL that doesn't count: another trial goes on with it."""
OUTSIDE = "outside"
"""User attribute: the record of a trial that the spaces can't draw, which itself is a FAIL without parameters."""


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of a finished trial.

    Attributes:
        number: from 0; the defaults of each space are the first.
        state: ``COMPLETE``, ``PRUNED`` (stopped early) or ``FAIL``.
        values: of the objectives, in the epoch that is best by the first one; of a pruned trial, the first objective
            in its last epoch; None where it has none.
        accuracy: of the epoch that is best by the first objective, as are macro_f1 and images_per_s.
        images_per_s: of prediction, measured in the trial; None where nobody asked.
        space: name of the search space it was drawn from.
        params: what was drawn, by config path.
        config: what it trained.
        by_epoch: the first objective after each epoch, in order.
        seconds: spent in its epochs, training and validating, those of the trials that it continues included; None
            of an interrupted one.
        error: why it failed.
        started: when it was drawn, by the clock of the driver; None where the database doesn't know.
        ended: when it was closed; of one that a dead driver left, when the search was resumed.
        continues: number of the interrupted trial that it went on with.
        interrupted: whether it ended through no fault of its own. Such a trial doesn't count; another one continues it.
        is_outside: whether it was drawn from previous spaces of the search, and the present ones can't draw it.
    """

    number: int
    state: str
    values: tuple[float, ...] | None
    accuracy: float | None
    macro_f1: float | None
    images_per_s: float | None
    space: str
    params: dict[str, Any]
    config: Config
    by_epoch: list[float]
    seconds: float | None
    error: str | None
    started: datetime | None
    ended: datetime | None
    continues: int | None = None
    interrupted: bool = False
    is_outside: bool = False

    @property
    def value(self) -> float | None:
        """Of the first objective."""
        return self.values[0] if self.values else None

    @property
    def reached(self) -> float | None:
        """The first objective in the best epoch, whether the trial trained to its end or not."""
        return max(self.by_epoch) if self.by_epoch else self.value

    @property
    def stopped(self) -> str:
        """How far a trial came that didn't train to its end; empty of one that did."""
        if self.state == "COMPLETE":
            return ""
        return f"stopped after epoch {len(self.by_epoch)} of {self.config.training.epochs}"

    @property
    def best_epoch(self) -> int | None:
        """The first epoch that is best by the first objective, from 1."""
        return 1 + self.by_epoch.index(max(self.by_epoch)) if self.by_epoch else None

    def beats(self, other: "TrialRecord") -> bool:
        """Whether it is better by one objective, and as good by the others."""
        pairs = list(zip(self.values or (), other.values or (), strict=True))
        return all(mine >= its for mine, its in pairs) and any(mine > its for mine, its in pairs)

    def outside(self) -> dict[str, Any]:
        """Return what a trial without parameters doesn't tell, as JSON has it."""
        return {
            "state": self.state,
            "values": self.values,
            "space": self.space,
            "config": self.config.model_dump_json(),
            "drawn": list(self.params),
            "by_epoch": self.by_epoch,
        }


class RunningTrial:
    """What is known of a trial before it ends.

    Attributes:
        failures: how often the process or node of those that it continues was lost.
        most: times that may happen before it is given up.
        epochs: that it is to train.
        best: the metrics of the epoch that is best by the first objective.
    """

    def __init__(self, trial: Trial, failures: int, config: Config):
        self.trial, self.failures = trial, failures
        self.most, self.epochs = config.training.max_failures, config.training.epochs
        self.seconds = 0.0
        self.best: dict[str, float] | None = None
        self.by_epoch: list[float] = []

    def note_best(self) -> None:
        """Write what was measured of the best epoch into the database."""
        for objective in OBJECTIVES.values():
            if self.best is not None and objective.metric in self.best:
                self.trial.set_user_attr(objective.name, self.best[objective.metric])


def read_record(trial: FrozenTrial, spaces: Mapping[str, SearchSpace]) -> TrialRecord:
    """Read a finished trial of a study over the given spaces."""
    attributes = trial.user_attrs
    state, values = trial.state.name, trial.values
    by_epoch = [value for _, value in sorted(trial.intermediate_values.items())] or attributes.get(BY_EPOCH, [])
    if outside := attributes.get(OUTSIDE):
        state, values, by_epoch = outside["state"], outside["values"], outside["by_epoch"]
        key, config = outside["space"], Config.model_validate_json(outside["config"])
        drawn = {path: value_at(config, path) for path in outside["drawn"]}
    else:
        key, drawn, config = recall(trial.params, spaces)
    return TrialRecord(
        number=trial.number,
        state=state,
        values=tuple(values) if values else None,
        accuracy=attributes.get("accuracy"),
        macro_f1=attributes.get("macro_f1"),
        images_per_s=attributes.get("images_per_s"),
        space=key,
        config=config,
        params=drawn,
        by_epoch=by_epoch,
        seconds=attributes.get("seconds"),
        error=attributes.get("error"),
        started=_in_utc(trial.datetime_start),
        ended=_in_utc(trial.datetime_complete),
        continues=attributes.get(CONTINUES),
        interrupted=INTERRUPTED in attributes,
        is_outside=OUTSIDE in attributes,
    )


def _in_utc(moment: datetime | None) -> datetime | None:
    """Optuna writes local times without their zone."""
    return None if moment is None else moment.astimezone(UTC)


def error_line(error: str | None, width: int = 200) -> str:
    """Return what an error says, without a traceback before or paragraphs behind it, as one line."""
    lines = (error or "").strip().splitlines() or ["no message"]
    said = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return textwrap.shorten(said, width, placeholder=" …")


def short(value: Any) -> str:
    """Write a parameter's value for a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
