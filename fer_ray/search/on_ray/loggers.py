"""Ray's own callbacks for TensorBoard and MLflow, to which a search's trials are shown as their users know them.

A run a trial, under its number; its parameters by config path, its curves by the names of ``metrics.jsonl``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune as ray_tune
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from sqlalchemy.engine import URL

from fer_ray.cluster import connect
from fer_ray.config.paths import value_at
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.progress import say
from fer_ray.search.search_metric import SearchMetric

STEP = "training_iteration"
"""What Ray's callbacks call the epoch."""


def make_loggers(
    names: Sequence[str], folder: Path, study: str, spaces: Mapping[str, SearchSpace], objective: SearchMetric
) -> list[ray_tune.Callback]:
    """Make a callback for Ray Tune of each name in ``fer_ray.options.LOGGERS``.

    TensorBoard's files lie in ``tensorboard/NUMBER/`` in the search's folder. MLflow's experiment is called as the
    study; it goes to the server that ``MLFLOW_TRACKING_URI`` names, else to ``mlflow.db`` in the search's folder.
    """
    made: dict[str, LoggerCallback] = {}
    if "tensorboard" in names:
        made["tensorboard"] = _TensorBoard()  # type: ignore[no-untyped-call]  # of Ray
    if "mlflow" in names:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it tells of each of its own tables
        from ray.air.integrations.mlflow import MLflowLoggerCallback  # imports mlflow, which takes seconds

        own = URL.create("sqlite", database=str(folder / "mlflow.db")).render_as_string(hide_password=False)
        uri = os.environ.get("MLFLOW_TRACKING_URI", own)
        made["mlflow"] = MLflowLoggerCallback(uri, experiment_name=study)
    return [_ShownTo(name, logger, folder / name, spaces, objective) for name, logger in made.items()]


class _Shown:
    """A trial, as far as Ray's callbacks look at it.

    Args:
        parameters: by config path.
        folder: for what they write of it.
    """

    def __init__(self, number: int, parameters: dict[str, Any], folder: Path):
        self.config = self.evaluated_params = parameters
        self.local_path = str(folder)
        self._number = number

    def __str__(self) -> str:
        return f"trial {self._number}"

    def init_local_path(self) -> None:
        """Make the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


class _ShownTo(connect.NotPickled, ray_tune.Callback):
    """Passes trials on to one of Ray's callbacks. Where that fails, the search goes on without it."""

    def __init__(
        self,
        name: str,
        logger: LoggerCallback,
        folder: Path,
        spaces: Mapping[str, SearchSpace],
        objective: SearchMetric,
    ):
        self._name, self._folder, self._spaces, self._objective = name, folder, spaces, objective
        self._logger: LoggerCallback | None = logger
        self._shown: dict[int, _Shown] = {}
        self._failed: set[int] = set()

    def setup(self, *args: Any, **info: Any) -> None:
        self._tell("setup", **info)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        number, config = trial.config["number"], Config.model_validate_json(trial.config["config"])
        space = trial.config["space"]
        parameters = {path: _plain(value_at(config, path)) for path in self._spaces[space].search}
        self._shown[number] = _Shown(number, {"space": space} | parameters, self._folder / str(number))
        self._tell("log_trial_start", self._shown[number])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        number = trial.config["number"]
        if "error" in result:
            self._failed.add(number)
            return
        # The best so far stands first, as TensorBoard's table of trials begins with it.
        metrics = {f"best_{self._objective.metric}": result["best"], **result["metrics"]}
        metrics[STEP] = int(metrics.pop("epoch"))
        self._tell("log_trial_result", iteration, self._shown[number], metrics)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._failed.add(trial.config["number"])
        self._end(trial.config["number"])

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        for number in list(self._shown):
            self._end(number)

    def _end(self, number: int) -> None:
        shown = self._shown.pop(number, None)
        if shown:  # else it was stopped before it began
            self._tell("log_trial_end", shown, failed=number in self._failed)

    def _tell(self, event: str, *args: Any, **kwargs: Any) -> None:
        if self._logger is None:
            return
        try:
            getattr(self._logger, event)(*args, **kwargs)
        except Exception as error:  # of a server, a disk or a package: none is worth a search
            self._logger = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            say(f"--log {self._name} failed, and the search goes on without it: {reason}")


def _plain(value: Any) -> str | bool | int | float:
    return value if isinstance(value, str | bool | int | float) else str(value)


class _TensorBoard(TBXLoggerCallback):
    """Calls curves by their own names, which Ray's callback puts below ``ray/tune/``."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        curves = {name: value for name, value in result.items() if name != STEP}
        for name, value in curves.items():
            self._trial_writer[trial].add_scalar(name, value, global_step=result[STEP])
        self._trial_writer[trial].flush()
        self._trial_result[trial] = curves
