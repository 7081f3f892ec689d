"""The trials of a search on Ray Tune: its searcher, scheduler, callback and stopper, all around the study."""

from __future__ import annotations

import time
from typing import Any

import ray
import torch
from ray import tune as ray_tune
from ray.tune.search import Searcher

from fer_ray.cluster import connect
from fer_ray.cluster.failures import FailureReader
from fer_ray.cluster.metrics import count_failure, count_images, counter, gauge
from fer_ray.cluster.resources import room
from fer_ray.config.schema import Config
from fer_ray.console.interrupts import deferred_interrupt
from fer_ray.console.progress import ProgressBar
from fer_ray.errors import FerRayError
from fer_ray.inference.device import limit_gpu_memory, release_memory
from fer_ray.search.folder import SearchFolder, kept_epochs
from fer_ray.search.log import SearchLog
from fer_ray.search.on_ray.loggers import make_loggers
from fer_ray.search.on_ray.schedulers import make_scheduler
from fer_ray.search.on_ray.trial_on_workers import DRIVER, run_trial_on_workers
from fer_ray.search.on_ray.tune_adapter import Stop, adapted_tune, forget_metrics, run_to_its_end, worker_error
from fer_ray.search.plan import Allocation
from fer_ray.search.request import SearchRequest
from fer_ray.search.search_metric import SearchMetric
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study
from fer_ray.search.time_budget import TimeBudget
from fer_ray.search.trial_records import TrialRecord
from fer_ray.search.trial_reporter import TrainFunction, TrialReporter
from fer_ray.search.trial_table import TrialTable
from fer_ray.storage.output import Output
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Snapshot


class TrialCounts:
    """Counts the trials of a search; a ``fer_ray.search.log.Watcher``.

    Args:
        objective: the search's first one.
    """

    def __init__(self, objective: SearchMetric):
        self._objective, self._running = objective, set[int]()

    def began(self, number: int) -> None:
        """Note that a trial runs."""
        self._running.add(number)
        self._show_running()

    def closed(self, record: TrialRecord, best: TrialRecord | None) -> None:
        """Note that a trial has ended, and which one is the best by now."""
        self._running.discard(record.number)
        state = "INTERRUPTED" if record.interrupted else record.state
        counter("trials", "Trials closed.", "state").inc(1, {"state": state})
        if best and best.reached is not None:
            tags = {"objective": self._objective.name}
            gauge("best_value", "Of the first objective, the best so far.", "objective").set(best.reached, tags)
        self._show_running()

    def _show_running(self) -> None:
        gauge("trials_running", "Trials under way.").set(len(self._running))


_NODES_S = 5.0


def run_trials(
    request: SearchRequest,
    data: TrainingData,
    study: Study,
    folder: SearchFolder,
    objective: TrainFunction,
    allocation: Allocation,
) -> None:
    """Run trials until as many count as finished as were asked for, the time is over or Ctrl-C is pressed.

    Raises:
        KeyboardInterrupt: after the running trials were stopped and closed.
        FerRayError: Ray has died; the running trials are left to a resume.
    """
    running = TrialTable(request.strategy.first)
    with (
        ProgressBar("searching", request.options.trials, "trials", study.counted(), running) as bar,
        deferred_interrupt("Stopping the running trials.") as interrupted,
        adapted_tune(),
    ):
        first = request.strategy.first
        budget = None
        if request.options.seconds is not None:
            left = request.options.trials - study.counted()
            budget = TimeBudget(request.options.seconds, left, allocation.concurrent, data.info.size)
        log = SearchLog(study, folder, bar, running, TrialCounts(first), budget)
        loggers = make_loggers(request.options.loggers, folder.path, study.name, request.spaces, first)
        recorder = _TrialRecorder(
            log,
            FailureReader(allocation.concurrent, allocation.resources.get("GPU", 0)),
            request.dataset.labelled("train"),
        )
        tuner = ray_tune.Tuner(
            _function(allocation, data, objective, folder, request.strategy),
            tune_config=ray_tune.TuneConfig(
                search_alg=_StudySearcher(study, folder, request, allocation),
                scheduler=make_scheduler(request.strategy.scheduler, study.records()),
                num_samples=-1,  # the searcher says when it is enough
                # A process that waits for workers can't be told to leave them; it ends, and they with it.
                reuse_actors=allocation.workers == 1,
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=ray_tune.RunConfig(
                name="tune",
                **connect.ray_storage(folder.ray),
                stop=Stop(request.options.seconds, interrupted),
                callbacks=[recorder, *loggers],
                verbose=0,
            ),
        )
        run_to_its_end(tuner)
        log.search_stopped(interrupted.is_set())
    if interrupted.is_set():
        raise KeyboardInterrupt


def _function(
    allocation: Allocation, data: TrainingData, objective: TrainFunction, folder: SearchFolder, strategy: Strategy
) -> Any:
    """Return what Tune calls for each trial, with the resources of the process that it is called in."""
    common = {"objective": objective, "folder": folder.scratch, "strategy": strategy}
    if allocation.workers > 1:
        work = ray_tune.with_parameters(
            run_trial_on_workers, data=[ray.put(data)], allocation=allocation, notes=folder.ray, **common
        )
        return ray_tune.with_resources(work, DRIVER)
    gpu = allocation.resources.get("GPU", 0)
    work = ray_tune.with_parameters(_run_trial, data=data, threads=allocation.threads, gpu=gpu, **common)
    return ray_tune.with_resources(work, allocation.resources)


def _run_trial(
    params: dict[str, Any],
    data: TrainingData,
    objective: TrainFunction,
    folder: Output,
    threads: int,
    gpu: float,
    strategy: Strategy,
) -> None:
    """Train one candidate in a trial's process, its best and last checkpoint going to ``folder/NUMBER``.

    Where the last one of a trial that this one continues lies there, its epochs are reported again.
    """
    torch.set_num_threads(threads)
    connect.hide_unasked_gpus()
    limit_gpu_memory(gpu)
    config = Config.model_validate_json(params["config"])
    epochs = TrialReporter(config, kept_epochs(folder, params["number"], strategy.first.metric), strategy)

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        ray_tune.report(epochs.keep(metrics, snapshot))

    try:
        for result in epochs.previous():
            ray_tune.report(result)
        objective(config, data, report, resume_from=epochs.resumable())
    except FerRayError as error:  # reported, not raised: the process stays good for the next trial
        ray_tune.report({"error": str(error), "value": epochs.best, "best": epochs.best, "progress": 0.0})
    finally:
        epochs.forget()
        release_memory()


class _StudySearcher(connect.NotPickled, Searcher):
    """Gives Ray Tune the study's candidates, as many at once as the nodes hold that there are by then.

    ``_TrialRecorder`` hears what becomes of them.
    """

    def __init__(self, study: Study, folder: SearchFolder, request: SearchRequest, allocation: Allocation):
        super().__init__(metric="best", mode="max")
        self._study, self._folder, self._request, self._share = study, folder, request, allocation
        self._room, self._counted = allocation.concurrent, time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """Return the next candidate, ``FINISHED``, or None while there is no room for another one, or those that run
        are enough if none of them is lost.
        """
        left = self._request.options.trials - self._study.counted()
        if left <= 0:
            return Searcher.FINISHED
        if len(self._study.running()) >= min(left, self._at_once()):
            return None
        candidate = self._study.ask()
        self._folder.take_over(candidate)
        return {"number": candidate.number, "space": candidate.space, "config": candidate.config.model_dump_json()}

    def _at_once(self) -> int:
        """How many trials the cluster holds now, a node that joined or was lost counted after some seconds."""
        if time.monotonic() - self._counted >= _NODES_S:
            fit = room(connect.nodes(), self._share.resources) // self._share.workers
            self._room = max(1, min(fit, self._request.options.max_concurrent or fit))
            self._counted = time.monotonic()
        return self._room

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


class _TrialRecorder(connect.NotPickled, ray_tune.Callback):
    """Passes what Ray Tune sees of the trials on to the log, and counts their images: ``rows`` an epoch."""

    def __init__(self, log: SearchLog, failures: FailureReader, rows: int):
        self._log, self._failures, self._rows = log, failures, rows

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        config = Config.model_validate_json(trial.config["config"])
        self._log.began(trial.config["number"], trial.config["space"], config)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        # `done` is the scheduler's decision alone: a trial that ends by itself reports nothing more.
        self._log.report(trial.config["number"], result, stopped=result["done"])
        if "error" in result:
            count_failure("tune", "error")
        elif not result["previous"]:
            count_images("tune", ok=self._rows)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._log.ended(trial.config["number"])
        forget_metrics(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        failure = self._failures.read(worker_error(trial))
        count_failure("tune", failure.kind)
        close = self._log.lost if failure.lost else self._log.crashed
        close(trial.config["number"], failure.text)
        forget_metrics(trial)
