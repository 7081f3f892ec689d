"""A trial of a search, in the process that Ray Tune starts for it, and on its workers."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune as ray_tune
from ray.exceptions import RayError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.util.queue import Queue

from fer_ray.cluster import connect
from fer_ray.cluster.failures import advice
from fer_ray.cluster.memory import memory_errors
from fer_ray.cluster.ray_patches import name_cluster_to_train
from fer_ray.config.paths import with_values
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.errors import FerRayError, UsageError
from fer_ray.inference.device import limit_gpu_memory, release_memory
from fer_ray.inference.network import prediction_speed
from fer_ray.search.plan import Allocation
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.strategy import Strategy
from fer_ray.storage.output import SHARE_IT, Output
from fer_ray.training.on_ray.train_workers import first_failure, make_trainer
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Report, RunFolder, Snapshot

DRIVER = {"CPU": 0.001}
"""Resources of the process that a trial's workers report to, which is mostly idle; Ray Tune refuses 0."""
_LEFT = 0.01  # CPUs that each worker leaves to those processes


class TrainFunction(Protocol):
    """Trains a configuration and reports each epoch, as ``fit`` does."""

    def __call__(self, config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
        """Train; ``resume_from`` is a folder of an earlier epoch, written by ``Snapshot.save(resumable=True)``."""
        ...


@dataclass(frozen=True)
class TrialWork:
    """What the process of a trial needs, apart from the rows and the searched values."""

    train: TrainFunction  # trains a configuration, as ``fit`` does
    runs: Output  # folder with the training run of each trial
    notes: Output  # folder for the files of Ray Train
    spaces: Mapping[str, SearchSpace]
    strategy: Strategy
    allocation: Allocation


def run_trial(params: dict[str, Any], data: Any, work: TrialWork) -> None:
    """Train a candidate in this process, or on workers, and report each epoch and an error to Ray Tune.

    Errors of Ray's, such as a lost worker, are raised: Ray Tune then restarts the trial. Any other error would come
    again. It is reported, and the process stays usable for the next trial. ``data`` are all rows; for workers it is a
    reference to them, in a list, because Ray would send the rows themselves.
    """
    connect.hide_unrequested_gpus()
    values = {path: value for path, value in params.items() if "." in path}
    config, allocation = with_values(work.spaces[params["space"]], values), work.allocation
    run = RunFolder(work.runs.within(params["folder"]), work.strategy.first.metric)
    try:
        with memory_errors(advice(config.training)):
            if allocation.workers > 1:
                for result in train_on_workers(data, config, run, work):
                    ray_tune.report(result)
            else:
                torch.set_num_threads(allocation.threads)
                limit_gpu_memory(allocation.resources.get("GPU", 0))
                _train(data, config, run, work, ray_tune.report)
    except RayError:
        raise
    except Exception as error:
        ray_tune.report({"error": str(error) if isinstance(error, FerRayError) else f"{type(error).__name__}: {error}"})
    finally:
        run.output.forget()
        release_memory()


def _train(
    data: TrainingData,
    config: Config,
    run: RunFolder,
    work: TrialWork,
    put: Callable[[dict[str, Any]], object],
    rank: int = 0,
) -> None:
    """Train a candidate from its last epoch on. The first of several ranks writes the run and puts each epoch's result.

    A result is the epoch's metrics and ``previous``: whether the epoch was trained by an earlier process.
    """
    speed = Metrics()

    def put_result(metrics: Metrics, previous: bool) -> None:
        if "images_per_s" in work.strategy.objectives and not speed:
            # Measured once: later epochs change the weights, not the speed.
            speed[OBJECTIVES["images_per_s"].metric] = prediction_speed(run.best, config.training.precision)
        put({**metrics, **speed, "previous": previous})

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        if rank == 0:
            run.record(metrics, snapshot)
            put_result(metrics, previous=False)

    if not run.output.is_remote and not (search := run.path.parent.parent).is_dir():
        raise UsageError(f"{search}: not visible on {os.uname().nodename}. {SHARE_IT}")
    run.output.fetch()
    if rank == 0:
        run.begin(config)
        for metrics in run.catch_up():
            put_result(metrics, previous=True)
    work.train(config, data, report, resume_from=run.resumable())


def train_on_workers(
    data: list["ray.ObjectRef[TrainingData]"], config: Config, run: RunFolder, work: TrialWork
) -> Iterator[dict[str, Any]]:
    """Train a candidate on several workers of Ray Train and yield the result of each epoch.

    Ray's ``TuneReportCallback`` isn't used: if the driver of the search is busy when the last epoch is reported, the
    callback waits for ever, because the end of the trial already takes the only slot of its queue.
    """
    allocation, notes = work.allocation, work.notes.within(run.path.name)
    results = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": connect.on_this_node()})
    share = partial(_train_share, data=data, config=config, run=run, work=work, results=results)
    resources = allocation.resources | {"CPU": allocation.resources["CPU"] - _LEFT}
    # Ray Tune restarts the trial.
    trainer = make_trainer(share, allocation.workers, resources, allocation.threads, notes, max_failures=0)
    failures = list[Exception]()

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)
        finally:
            results.put(None)

    name_cluster_to_train()
    # A daemon: when the trial is stopped, Tune ends this process and thereby the processes that it owns.
    threading.Thread(target=fit, daemon=True).start()
    while (result := results.get()) is not None:
        yield result
    for error in failures:
        if isinstance(error, WorkerGroupError):
            raise first_failure(error.worker_failures)[1]
        raise error.controller_failure if isinstance(error, ControllerError) else error


def _train_share(
    rank: int,
    data: list["ray.ObjectRef[TrainingData]"],
    config: Config,
    run: RunFolder,
    work: TrialWork,
    results: Queue,
) -> None:
    """Train on one of several workers, on its share of the rows, which are in Ray's object store: one copy per node."""
    rows, count = ray.get(data[0]), work.allocation.workers
    own = TrainingData(rows.train.share(rank, count), rows.validation.share(rank, count), rows.info)
    _train(own, config, run, work, results.put, rank)
