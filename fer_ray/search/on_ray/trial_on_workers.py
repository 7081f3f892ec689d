"""Train a trial on several workers of Ray Train, inside a function of Ray Tune."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.util.queue import Queue

from fer_ray.cluster.connect import on_this_node, ray_storage
from fer_ray.cluster.ray_patches import name_cluster_to_train
from fer_ray.config.schema import Config
from fer_ray.search.plan import Allocation
from fer_ray.search.trial_reporter import TrainFunction, TrialReporter
from fer_ray.storage.output import Output
from fer_ray.training.on_ray.train_workers import first_failure, make_trainer
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Report, Snapshot

DRIVER = {"CPU": 0.001}
"""Resources of the process that a trial's workers report to, which is mostly idle; Ray Tune refuses 0."""
_LEFT = 0.01
"""CPUs that each worker leaves to those processes."""


def train_on_workers(
    config: Config,
    data: list["ray.ObjectRef[TrainingData]"],
    train: TrainFunction,
    reporter: TrialReporter,
    allocation: Allocation,
    notes: Output,
) -> Iterator[dict[str, Any]]:
    """Train a candidate on the workers of an allocation and yield the result of each epoch.

    Ray's ``TuneReportCallback`` isn't used: if the driver of the search is busy when the last epoch is reported, the
    callback waits for ever, because the end of the trial already takes the only slot of its queue.

    Args:
        data: reference to all rows, in a list, because Ray would send the rows themselves otherwise.
        notes: folder for the files of Ray Train.
    """
    results = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    job = _TrialJob(config, data, allocation.workers, train, reporter, results)
    run_config = RunConfig(
        name=notes.path.name,
        **ray_storage(notes),
        failure_config=FailureConfig(max_failures=0),  # Ray Tune restarts the trial
    )
    resources = allocation.resources | {"CPU": allocation.resources["CPU"] - _LEFT}
    trainer = make_trainer(job, allocation.workers, resources, allocation.threads, run_config)
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
        raise _cause(error)


def _cause(error: Exception) -> Exception:
    """Return the error of the worker that ended a trial."""
    if isinstance(error, WorkerGroupError):
        return first_failure(error.worker_failures)[1]
    return error.controller_failure if isinstance(error, ControllerError) else error


@dataclass(frozen=True)
class _TrialJob:
    """A trial of several workers, whose rows are in Ray's object store: one copy per node.

    Attributes:
        results: results of the first worker, which is at most one epoch ahead of Tune.
    """

    config: Config
    data: list["ray.ObjectRef[TrainingData]"]
    workers: int
    train_function: TrainFunction
    reporter: TrialReporter
    results: Queue

    def begin(self) -> None:
        for result in self.reporter.begin():
            self.results.put(result)

    def train(self, rank: int, report: Report) -> None:
        if rank:
            self.reporter.run.output.fetch()
        data = ray.get(self.data[0])
        own = TrainingData(data.train.share(rank, self.workers), data.validation.share(rank, self.workers), data.info)
        self.train_function(self.config, own, report, resume_from=self.reporter.run.resumable())

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        self.results.put(self.reporter.record(metrics, snapshot))
