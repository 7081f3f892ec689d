"""The trials of a search on Ray Tune: its searcher, scheduler, callback and stopper, all around the study."""

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune as ray_tune
from ray.tune.search import Searcher

from fer_ray import runtime
from fer_ray.config import Config
from fer_ray.errors import FerRayError, UsageError
from fer_ray.learning.loop import Metrics, Report, Snapshot
from fer_ray.learning.objectives import OBJECTIVES
from fer_ray.learning.predictor import prediction_speed
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.running_trials import RunningTrials
from fer_ray.learning.search import SearchRequest, Share, share_out
from fer_ray.learning.search_folder import SearchFolder
from fer_ray.learning.search_log import SearchLog
from fer_ray.learning.strategy import Strategy
from fer_ray.learning.study import Study
from fer_ray.progress import ProgressBar
from fer_ray.tune_loggers import make_loggers
from fer_ray.tune_schedulers import make_scheduler

Objective = Callable[[Config, TrainingData, Report], None]
"""Trains a configuration and reports each epoch, as ``fit`` does."""


def plan(request: SearchRequest, trials: int) -> Share:
    """Connect to Ray and share out its nodes.

    Raises:
        UsageError: the trials don't fit; the message shows the arithmetic.
    """
    runtime.connect()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = share_out(nodes, trials, request.max_concurrent)
    runtime.require(share.concurrent, share.resources, "trials at once")
    return share


def run_trials(
    request: SearchRequest, data: TrainingData, study: Study, folder: SearchFolder, left: int, objective: Objective
) -> None:
    """Run trials until ``left`` more are finished, the time is over or Ctrl-C is pressed.

    Raises:
        KeyboardInterrupt: after the running trials were stopped and closed.
    """
    share = plan(request, left)
    work = ray_tune.with_parameters(
        _run_trial,
        data=data,
        objective=objective,
        folder=folder.scratch,
        threads=share.threads,
        strategy=request.strategy,
    )
    running = RunningTrials(request.strategy.first)
    with (
        ProgressBar("searching", request.trials, "trials", study.counted(), running) as bar,
        runtime.deferred_interrupt("Stopping the running trials. Ctrl-C again leaves at once.") as interrupted,
        runtime.quiet_ray_tune(),
    ):
        log = SearchLog(study, folder, bar, running)
        first = request.strategy.first
        loggers = make_loggers(request.loggers, folder.path, study.name, request.spaces, first)
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(work, share.resources),
            tune_config=ray_tune.TuneConfig(
                search_alg=_StudySearcher(study),
                scheduler=make_scheduler(request.strategy.scheduler, study.records()),
                num_samples=left,
                max_concurrent_trials=share.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=ray_tune.RunConfig(
                name="tune",
                storage_path=str(folder.ray),
                stop=Stop(request.time_budget, interrupted),
                callbacks=[_Recorder(log), *loggers],
                verbose=0,
            ),
        )
        tuner.fit()
        log.search_stopped(interrupted.is_set())
    if interrupted.is_set():
        raise KeyboardInterrupt


def _run_trial(
    params: dict[str, Any], data: TrainingData, objective: Objective, folder: Path, threads: int, strategy: Strategy
) -> None:
    """Train one candidate in a trial's process, its best checkpoint going to ``folder/NUMBER``."""
    torch.set_num_threads(threads)
    config, best, speed = Config.model_validate_json(params["config"]), -1.0, Metrics()
    checkpoint = folder / str(params["number"])

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        nonlocal best
        value = metrics[strategy.first.metric]
        if value > best:
            best = value
            snapshot.save(checkpoint)
        if "images_per_s" in strategy.objectives and not speed:
            # Once: later epochs change the weights, not what they cost.
            speed[OBJECTIVES["images_per_s"].metric] = prediction_speed(checkpoint, config.training.precision)
        progress = 100 * metrics["epoch"] / config.training.epochs
        ray_tune.report({"metrics": metrics | speed, "value": value, "best": best, "progress": progress})

    try:
        if not folder.parent.is_dir():
            raise UsageError(
                f"{folder.parent}: not visible on {os.uname().nodename}. Put it on a disk all nodes share."
            )
        objective(config, data, report)
    except FerRayError as error:  # reported, not raised: the process stays good for the next trial
        ray_tune.report({"error": str(error), "value": best, "best": best, "progress": 0.0})


class _StudySearcher(runtime.Unsaved, Searcher):
    """Gives Ray Tune the study's candidates; ``_Recorder`` hears what becomes of them."""

    def __init__(self, study: Study):
        super().__init__(metric="best", mode="max")
        self._study = study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        candidate = self._study.ask()
        return {"number": candidate.number, "space": candidate.space, "config": candidate.config.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


class _Recorder(runtime.Unsaved, ray_tune.Callback):
    """Passes what Ray Tune sees of the trials on to the log."""

    def __init__(self, log: SearchLog):
        self._log = log

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        config = Config.model_validate_json(trial.config["config"])
        self._log.began(trial.config["number"], trial.config["space"], config.training.epochs)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        # `done` is the scheduler's decision alone: a trial that ends by itself reports nothing more.
        self._log.report(trial.config["number"], result, stopped=result["done"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._log.ended(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._log.crashed(trial.config["number"], worker_error(trial))


def worker_error(trial: Any) -> object:
    """Return what was raised in the worker of a failed trial; else the text of Tune's own trouble."""
    file = Path(trial.pickled_error_file)
    error = ray.cloudpickle.loads(file.read_bytes()) if file.is_file() else Path(trial.error_file).read_text()
    return getattr(error, "cause", error)


class Stop(runtime.Unsaved, ray_tune.Stopper):
    """Ends a search when its time is over or at Ctrl-C, between two steps of Tune rather than within one."""

    def __init__(self, seconds: float | None, interrupted: threading.Event):
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._interrupted.is_set() or time.monotonic() > self._deadline
