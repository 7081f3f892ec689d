"""What becomes of the epochs of a trial, in the process that trains it."""

import os
from pathlib import Path
from typing import Any, Protocol

from fer_ray.config.schema import Config
from fer_ray.errors import UsageError
from fer_ray.inference.network import prediction_speed
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.strategy import Strategy
from fer_ray.storage.output import SHARE_IT
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import EpochCheckpoints, Metrics, Report, Snapshot


class TrainFunction(Protocol):
    """Trains a configuration and reports each epoch, as ``fit`` does."""

    def __call__(self, config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
        """Train; ``resume_from`` is a folder of an earlier epoch, written by ``Snapshot.save(resumable=True)``."""
        ...


class TrialReporter:
    """Keeps a trial's best and last checkpoint, and makes of each epoch the result that the search is told.

    Args:
        config: what is trained.
        kept: its checkpoints.
        strategy: what the search wants to know.

    Attributes:
        best: the first objective in the best epoch so far, -1 before the first.
    """

    def __init__(self, config: Config, kept: EpochCheckpoints, strategy: Strategy):
        self._config, self._kept, self._strategy = config, kept, strategy
        self._speed, self.best = Metrics(), -1.0

    def previous(self) -> list[dict[str, Any]]:
        """Return the results of the epochs of the trial that this one continues, if any.

        Raises:
            UsageError: this machine doesn't see the search's folder.
            DataError: the last checkpoint is damaged.
        """
        search, output = self._kept.output.path.parent.parent, self._kept.output
        if not output.is_remote and not search.is_dir():
            raise UsageError(f"{search}: not visible on {os.uname().nodename}. {SHARE_IT}")
        output.fetch()
        history = self._kept.catch_up()
        # Nobody may have heard of the last one before.
        return [self._result(metrics, previous=metrics is not history[-1]) for metrics in history]

    def fetch(self) -> None:
        """Take what the previous process kept to this machine."""
        self._kept.output.fetch()

    def forget(self) -> None:
        """Remove what is kept elsewhere from this machine."""
        self._kept.output.forget()

    def resumable(self) -> Path | None:
        """Return the folder to go on from, None before the first epoch was finished."""
        return self._kept.resumable()

    def keep(self, metrics: Metrics, snapshot: Snapshot) -> dict[str, Any]:
        """Keep an epoch and return its result."""
        self._kept.record(metrics, snapshot)
        return self._result(metrics)

    def _result(self, metrics: Metrics, previous: bool = False) -> dict[str, Any]:
        value = metrics[self._strategy.first.metric]
        self.best = max(self.best, value)
        if "images_per_s" in self._strategy.objectives and not self._speed:
            # Once: later epochs change the weights, not what they cost.
            speed = prediction_speed(self._kept.best, self._config.training.precision)
            self._speed[OBJECTIVES["images_per_s"].metric] = speed
        progress = 100 * metrics["epoch"] / self._config.training.epochs
        result = {"metrics": metrics | self._speed, "value": value, "best": self.best, "progress": progress}
        return result | {"previous": previous}
