"""A trial of several workers: a Tune function that trains through Ray Train and passes each epoch on."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune as ray_tune
from ray.train import FailureConfig, RunConfig
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.util.queue import Empty, Queue

from fer_ray.cluster.connect import hide_unrequested_gpus, on_this_node, ray_storage
from fer_ray.cluster.ray_patches import name_cluster_to_train
from fer_ray.config.schema import Config
from fer_ray.search.folder import kept_epochs
from fer_ray.search.plan import Allocation
from fer_ray.search.strategy import Strategy
from fer_ray.search.trial_reporter import TrainFunction, TrialReporter
from fer_ray.storage.output import Output
from fer_ray.training.on_ray.train_workers import first_failure, make_trainer
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Report, Snapshot

DRIVER = {"CPU": 0.001}
"""Of the process that a trial's workers report to, which hardly does a thing; Ray Tune refuses 0."""
_LEFT = 0.01
"""What each worker leaves of its CPUs for those processes."""
_PATIENCE_S = 0.5


def run_trial_on_workers(
    params: dict[str, Any],
    data: list["ray.ObjectRef[TrainingData]"],
    objective: TrainFunction,
    folder: Output,
    notes: Output,
    allocation: Allocation,
    strategy: Strategy,
) -> None:
    """Train one candidate on a allocation's workers, as ``_run_trial`` of ``tune_on_ray`` does in one process.

    Ray's ``TuneReportCallback`` would pass epochs on too, but waits for ever where the search's driver is busy while
    the last one comes: then the end of the trial is already in the one place of its queue.
    """
    hide_unrequested_gpus()
    config = Config.model_validate_json(params["config"])
    epochs = TrialReporter(config, kept_epochs(folder, params["number"], strategy.first.metric), strategy)
    results = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    job = _TrialJob(config, data, allocation.workers, objective, epochs, results)
    run_config = RunConfig(
        name=str(params["number"]),
        **ray_storage(notes),
        failure_config=FailureConfig(max_failures=0),  # as a trial of one process
    )
    resources = allocation.resources | {"CPU": allocation.resources["CPU"] - _LEFT}
    trainer = make_trainer(job, allocation.workers, resources, allocation.threads, run_config)
    failures = list[Exception]()

    def train() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    name_cluster_to_train()
    # A daemon: where the trial is stopped, Tune ends this process, and with it those that it owns.
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    for result in _until_ended(results, thread):
        ray_tune.report(result)
    for error in failures:
        raise _cause(error)


def _until_ended(results: Queue, thread: threading.Thread) -> Iterator[dict[str, Any]]:
    """Yield what the workers report, until they have ended and nothing is left."""
    ended = False
    while not ended:
        ended = not thread.is_alive()  # looked at first: what comes before the end is then seen
        try:
            yield results.get(timeout=_PATIENCE_S)
            ended = False
        except Empty:
            continue


def _cause(error: Exception) -> Exception:
    """Return the error of a worker's that ended a trial, as it would be of a trial of one process."""
    if isinstance(error, WorkerGroupError):
        return first_failure(error.worker_failures)[1]
    return error.controller_failure if isinstance(error, ControllerError) else error


@dataclass(frozen=True)
class _TrialJob:
    """A trial, whose rows are taken from Ray's object store: one copy a node, and no reading.

    Attributes:
        data: the reference to all rows, in a list, as Ray would otherwise send the rows themselves.
        results: what the first worker tells of each epoch; it is an epoch ahead of Tune at most.
    """

    config: Config
    data: list["ray.ObjectRef[TrainingData]"]
    workers: int
    objective: TrainFunction
    epochs: TrialReporter
    results: Queue

    def begin(self) -> None:
        for result in self.epochs.previous():
            self.results.put(result)

    def train(self, rank: int, report: Report) -> None:
        if rank:
            self.epochs.fetch()
        data = ray.get(self.data[0])
        own = TrainingData(data.train.share(rank, self.workers), data.validation.share(rank, self.workers), data.info)
        self.objective(self.config, own, report, resume_from=self.epochs.resumable())

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        self.results.put(self.epochs.keep(metrics, snapshot))
