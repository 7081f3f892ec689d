"""Run the trials of a study on Ray Tune."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray import tune as ray_tune
from ray.exceptions import RayError
from ray.tune.logger import TBXLoggerCallback
from ray.tune.search import Searcher
from sqlalchemy.engine import URL

from fer_ray.cluster import connect
from fer_ray.cluster.failures import advice
from fer_ray.cluster.memory import memory_errors
from fer_ray.cluster.resources import room
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.interrupts import deferred_interrupt
from fer_ray.console.progress import ProgressBar
from fer_ray.errors import FerRayError
from fer_ray.inference.device import limit_gpu_memory, release_memory
from fer_ray.search.folder import SearchFolder
from fer_ray.search.on_ray.trial_listener import TrialListener
from fer_ray.search.on_ray.trial_on_workers import DRIVER, train_on_workers
from fer_ray.search.on_ray.tune_adapter import adapted_tune, run_to_its_end
from fer_ray.search.plan import Allocation
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study
from fer_ray.search.trial_reporter import TrainFunction, TrialReporter
from fer_ray.search.trial_table import TrialTable
from fer_ray.storage.output import Output
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, RunFolder, Snapshot

_NODES_S = 5.0


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
) -> None:
    """Run trials until the study has the requested number, the time budget is used up or Ctrl-C is pressed.

    Args:
        trials: number of finished trials in the study at the end.
        train: trains a configuration, as ``fit`` does.
        folder: folder of the search.
        runs: folder in which each trial has a training run.
        on_closed: called after a trial was closed in the study.
        seconds: time budget from now on.
        loggers: ``tensorboard`` and ``mlflow``.

    Raises:
        KeyboardInterrupt: Ctrl-C; the running trials were closed.
        FerRayError: Ray has died; a resumed search continues the running trials.
    """
    table = TrialTable(study.strategy.first)
    with (
        ProgressBar("searching", trials, "trials", study.counted(), table) as bar,
        deferred_interrupt("Stopping the running trials.") as interrupted,
        adapted_tune(copies_files="tensorboard" in loggers),
    ):
        listener = TrialListener(study, trials, data, allocation, runs, on_closed, seconds, bar, table, interrupted)
        # TensorBoard's files lie where Ray Tune writes.
        output, name = (folder.output, "tensorboard") if "tensorboard" in loggers else (folder.ray, "tune")
        tuner = ray_tune.Tuner(
            _trainable(allocation, data, train, study, runs, folder.ray),
            tune_config=ray_tune.TuneConfig(
                search_alg=_StudySearcher(study, trials, allocation),
                num_samples=-1,  # the searcher decides when there are enough
                # A process that waits for workers can't be told to leave them; it ends, and they with it.
                reuse_actors=allocation.workers == 1,
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
        run_to_its_end(tuner)
        listener.close_running()
    if interrupted.is_set():
        raise KeyboardInterrupt


def _callbacks(loggers: Sequence[str], folder: SearchFolder, study: str) -> Iterator[ray_tune.Callback]:
    """Yield Ray's own loggers. MLflow's experiment is named as the study."""
    if "tensorboard" in loggers:
        yield TBXLoggerCallback()
    if "mlflow" in loggers:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it lists each of its own tables
        from ray.air.integrations.mlflow import MLflowLoggerCallback  # imports mlflow, which takes seconds

        own = URL.create("sqlite", database=str(folder.path / "mlflow.db")).render_as_string(hide_password=False)
        yield MLflowLoggerCallback(os.environ.get("MLFLOW_TRACKING_URI", own), experiment_name=study)


def _trainable(
    allocation: Allocation, data: TrainingData, train: TrainFunction, study: Study, runs: Output, notes: Output
) -> Any:
    """Return the function that Ray Tune calls for each trial, with its resources."""
    common = {"train": train, "runs": runs, "spaces": study.spaces, "strategy": study.strategy}
    if allocation.workers > 1:
        work = ray_tune.with_parameters(
            _run_on_workers, data=[ray.put(data)], allocation=allocation, notes=notes, **common
        )
        return ray_tune.with_resources(work, DRIVER)
    gpu = allocation.resources.get("GPU", 0)
    work = ray_tune.with_parameters(_run_here, data=data, threads=allocation.threads, gpu=gpu, **common)
    return ray_tune.with_resources(work, allocation.resources)


def _run_here(
    params: dict[str, Any],
    data: TrainingData,
    train: TrainFunction,
    runs: Output,
    spaces: Mapping[str, SearchSpace],
    strategy: Strategy,
    threads: int,
    gpu: float,
) -> None:
    """Train a candidate in the process of its trial."""
    torch.set_num_threads(threads)
    limit_gpu_memory(gpu)
    with _trial(params, runs, spaces, strategy) as (config, reporter):

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            ray_tune.report(reporter.record(metrics, snapshot))

        for result in reporter.begin():
            ray_tune.report(result)
        train(config, data, report, resume_from=reporter.run.resumable())


def _run_on_workers(
    params: dict[str, Any],
    data: list["ray.ObjectRef[TrainingData]"],
    train: TrainFunction,
    runs: Output,
    spaces: Mapping[str, SearchSpace],
    strategy: Strategy,
    allocation: Allocation,
    notes: Output,
) -> None:
    """Train a candidate on several workers."""
    with _trial(params, runs, spaces, strategy) as (config, reporter):
        for result in train_on_workers(config, data, train, reporter, allocation, notes.within(params["folder"])):
            ray_tune.report(result)


@contextmanager
def _trial(
    params: dict[str, Any], runs: Output, spaces: Mapping[str, SearchSpace], strategy: Strategy
) -> Iterator[tuple[Config, TrialReporter]]:
    """Yield the configuration and the reporter of a trial, and report its errors.

    Errors of Ray's, such as a lost worker, are raised: Ray Tune then restarts the trial. Any other error would come
    again. It is reported, and the process stays usable for the next trial.
    """
    connect.hide_unrequested_gpus()
    config = spaces[params["space"]].with_values({path: value for path, value in params.items() if "." in path})
    reporter = TrialReporter(config, RunFolder(runs.within(params["folder"]), strategy.first.metric), strategy)
    try:
        with memory_errors(advice(config.training)):
            yield config, reporter
    except RayError:
        raise
    except Exception as error:
        ray_tune.report({"error": str(error) if isinstance(error, FerRayError) else f"{type(error).__name__}: {error}"})
    finally:
        reporter.run.output.forget()
        release_memory()


class _StudySearcher(connect.NotPickled, Searcher):
    """Gives Ray Tune the study's candidates, as many at once as the nodes have room for at the time."""

    def __init__(self, study: Study, trials: int, allocation: Allocation):
        super().__init__()
        self._study, self._trials, self._allocation = study, trials, allocation
        self._room, self._counted = allocation.concurrent, time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """Return the next candidate, ``FINISHED``, or None if there is no room or the running trials are enough."""
        left = self._trials - self._study.counted()
        if left <= 0:
            return Searcher.FINISHED
        if len(self._study.running()) >= min(left, self._at_once()):
            return None
        candidate = self._study.ask()
        return {"number": candidate.number, "space": candidate.space, "folder": candidate.folder, **candidate.params}

    def _at_once(self) -> int:
        """Return how many trials the cluster has room for; nodes that joined or were lost count after some seconds."""
        if time.monotonic() - self._counted >= _NODES_S:
            fit = room(connect.nodes(), self._allocation.resources) // self._allocation.workers
            self._room = max(1, min(fit, self._allocation.max_concurrent or fit))
            self._counted = time.monotonic()
        return self._room

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass
