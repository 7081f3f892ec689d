"""Run the trials of a study on Ray Tune."""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune as ray_tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.search import Searcher
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from sqlalchemy.engine import URL

from fer_ray.cluster import connect
from fer_ray.cluster.ray_patches import keep_credentials_from_trials, trials_killed_for_memory
from fer_ray.cluster.resources import room
from fer_ray.console.interrupts import deferred_interrupt
from fer_ray.console.messages import is_uploaded
from fer_ray.console.progress import ProgressBar
from fer_ray.console.text import duration
from fer_ray.errors import FerRayError
from fer_ray.search.folder import SearchFolder
from fer_ray.search.on_ray.trial import DRIVER, TrainFunction, TrialWork, run_trial
from fer_ray.search.on_ray.trial_listener import LostError, TrialListener
from fer_ray.search.plan import Allocation
from fer_ray.search.study import Study
from fer_ray.storage.output import Output
from fer_ray.training.rows import TrainingData

_NODES_S = 5.0
_LINES_BESIDE, _MOST_LINES = 8, 16  # of the table of trials
_SWITCHES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer one prints tables whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a search as if it were finished
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


def run_trials(
    study: Study,
    trials: int,
    data: TrainingData,
    train: TrainFunction,
    allocation: Allocation,
    folder: SearchFolder,
    runs: Output,
    on_closed: Callable[[], None],
    seconds: float | None = None,
    loggers: Sequence[str] = (),
    title: str = "searching",
) -> None:
    """Run trials until the study has ``trials`` finished ones, ``seconds`` are used up or Ctrl-C is pressed.

    ``runs`` is the folder in which each trial has a training run. ``on_closed`` is called after a trial was closed in
    the study. ``title`` is that of the progress bar. At ``KeyboardInterrupt`` the running trials were closed; at
    ``FerRayError`` Ray has died, and a resumed search continues them.
    """
    deadline = time.monotonic() + (math.inf if seconds is None else seconds)
    with (
        ProgressBar(title, trials, "trials", study.counted(), TrialTable(study)) as bar,
        deferred_interrupt("Stopping the running trials.") as interrupted,
        adapted_tune(copies_files="tensorboard" in loggers),
    ):
        rows = len(data.train)
        listener = TrialListener(study, trials, deadline, interrupted, rows, allocation, runs, on_closed, bar)
        run_to_its_end(_tuner(listener, data, train, folder, loggers))
        listener.close_running()
    if interrupted.is_set():
        raise KeyboardInterrupt


def _tuner(
    listener: TrialListener, data: TrainingData, train: TrainFunction, folder: SearchFolder, loggers: Sequence[str]
) -> ray_tune.Tuner:
    study, allocation = listener.study, listener.allocation
    on_workers = allocation.workers > 1
    work = TrialWork(train, listener.runs, folder.ray, study.spaces, study.strategy, allocation)
    function = ray_tune.with_parameters(run_trial, data=[ray.put(data)] if on_workers else data, work=work)
    # TensorBoard's files lie where Ray Tune writes.
    output, name = (folder.output, "tensorboard") if "tensorboard" in loggers else (folder.ray, "tune")
    return ray_tune.Tuner(
        ray_tune.with_resources(function, DRIVER if on_workers else allocation.resources),
        tune_config=ray_tune.TuneConfig(
            search_alg=_StudySearcher(listener),
            num_samples=-1,  # the searcher decides when there are enough
            # A process that waits for workers can't be told to leave them; it ends, and they with it.
            reuse_actors=not on_workers,
            trial_dirname_creator=lambda trial: str(trial.config["number"]),
        ),
        run_config=ray_tune.RunConfig(
            name=name,
            **connect.ray_storage(output),
            stop=listener,
            failure_config=ray_tune.FailureConfig(max_failures=study.max_failures),
            callbacks=[listener, *_callbacks(loggers, folder, study.name)],
            verbose=0,
        ),
    )


@contextmanager
def adapted_tune(copies_files: bool) -> Iterator[None]:
    """Turn off Ray Tune's console output, its result files and its handling of Ctrl-C while the context is open.

    Trials get no credentials: nodes have their own. A process that Ray's memory monitor kills fails its own trial only.
    ``copies_files``: whether Ray Tune copies its files, among them those of TensorBoard, while the search runs.
    """
    switches = _SWITCHES | {"TUNE_GLOBAL_CHECKPOINT_S": "10" if copies_files else "1000000000"}
    previous = dict(os.environ)
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(switches)
    logger.setLevel(logging.CRITICAL)
    keep_credentials_from_trials()
    try:
        with trials_killed_for_memory():
            yield
    finally:
        logger.setLevel(level)
        for name in switches:
            del os.environ[name]
            os.environ.update({name: previous[name]} if name in previous else {})


def run_to_its_end(tuner: ray_tune.Tuner) -> None:
    """Run Ray Tune until its trials have ended or its stopper ends the search; ``FerRayError`` if Ray has died.

    Leaves the uploaded folder of a job, which disappears when the job is stopped: Tune needs its current folder.
    """
    if is_uploaded(Path.cwd()):
        os.chdir(tempfile.gettempdir())
    try:
        tuner.fit()
    except LostError as lost:
        raise FerRayError(f"{lost.__cause__} Finished epochs are kept: resume with --resume.") from None


def _callbacks(loggers: Sequence[str], folder: SearchFolder, study: str) -> Iterator[ray_tune.Callback]:
    if "tensorboard" in loggers:
        yield TBXLoggerCallback()
    if "mlflow" in loggers:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it lists each of its own tables
        from ray.air.integrations.mlflow import MLflowLoggerCallback  # imports mlflow, which takes seconds

        own = URL.create("sqlite", database=str(folder.path / "mlflow.db")).render_as_string(hide_password=False)
        yield MLflowLoggerCallback(os.environ.get("MLFLOW_TRACKING_URI", own), experiment_name=study)


class _StudySearcher(connect.NotPickled, Searcher):
    """Gives Ray Tune the study's candidates, as many at once as the nodes have room for at the time."""

    def __init__(self, listener: TrialListener):
        super().__init__()
        self._listener, self._study, self._allocation = listener, listener.study, listener.allocation
        self._room, self._counted = self._allocation.concurrent, time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """Return the next candidate, ``FINISHED``, or None if there is no room or the running trials are enough."""
        left = self._listener.trials_left()
        if not left:
            return Searcher.FINISHED
        if len(self._study.running) >= min(left, self._at_once()):
            return None
        trial = self._study.ask()
        return {"number": trial.number, "space": trial.space, "folder": trial.folder, **trial.params}

    def _at_once(self) -> int:
        """Return how many trials the cluster has room for; nodes that joined or were lost count after some seconds."""
        if time.monotonic() - self._counted >= _NODES_S:
            fit = room(connect.nodes(), self._allocation.resources) // self._allocation.workers
            self._room = max(1, min(fit, self._allocation.max_concurrent or fit))
            self._counted = time.monotonic()
        return self._room

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


class TrialTable:
    """The running trials of a study: a line each, below the progress bar on a terminal and in a log."""

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
