"""Store the epochs of a trial and turn them into results, in the process that trains it."""

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
from fer_ray.training.run_folder import Metrics, Report, RunFolder, Snapshot


class TrainFunction(Protocol):
    """Trains a configuration and reports each epoch, as ``fit`` does."""

    def __call__(self, config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
        """Train; ``resume_from`` is a folder of an earlier epoch, written by ``Snapshot.save(resumable=True)``."""
        ...


class TrialReporter:
    """Writes the training run of a trial, and makes the result of each epoch for Ray Tune.

    A result is the epoch's metrics and ``previous``: whether the epoch was trained by an earlier process.
    """

    def __init__(self, config: Config, run: RunFolder, strategy: Strategy):
        self._config, self._strategy, self._speed = config, strategy, Metrics()
        self.run = run

    def begin(self) -> list[dict[str, Any]]:
        """Prepare the folder and return the results of the epochs that an earlier process trained.

        Raises:
            UsageError: this machine doesn't see the folder of the search.
            DataError: the last checkpoint is damaged.
        """
        output = self.run.output
        if not output.is_remote and not (search := output.path.parent.parent).is_dir():
            raise UsageError(f"{search}: not visible on {os.uname().nodename}. {SHARE_IT}")
        output.fetch()
        self.run.begin(self._config)
        return [self._result(metrics) | {"previous": True} for metrics in self.run.catch_up()]

    def record(self, metrics: Metrics, snapshot: Snapshot) -> dict[str, Any]:
        """Store an epoch and return its result."""
        self.run.record(metrics, snapshot)
        return self._result(metrics) | {"previous": False}

    def _result(self, metrics: Metrics) -> dict[str, Any]:
        if "images_per_s" in self._strategy.objectives and not self._speed:
            # Measured once: later epochs change the weights, not the speed.
            speed = prediction_speed(self.run.best, self._config.training.precision)
            self._speed[OBJECTIVES["images_per_s"].metric] = speed
        return metrics | self._speed
