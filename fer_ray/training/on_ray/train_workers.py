"""Training on several processes through Ray Train, with shards of Ray Data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray
import ray.train
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.constants import ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_ray.cluster import connect
from fer_ray.cluster.connect import ray_storage
from fer_ray.cluster.failures import Failure, FailureReader, advice
from fer_ray.cluster.memory import available_memory, memory_errors
from fer_ray.cluster.metrics import count_failure
from fer_ray.cluster.node_checks import external_paths, require_seen_by_nodes
from fer_ray.cluster.resources import fitting, most_cpus, room
from fer_ray.config.schema import Config
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount
from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import FerRayError
from fer_ray.training.loop import fit
from fer_ray.training.metrics import Metrics
from fer_ray.training.on_ray import shards
from fer_ray.training.on_ray.shared_progress import shared_progress
from fer_ray.training.rows import TrainingData, fitting_splits
from fer_ray.training.run_folder import Report, RunFolder, Snapshot, describe_epoch


def train_on_ray(
    config: Config,
    data: PreparedDataset,
    run: RunFolder,
    bar: ProgressBar,
    workers: int,
    gpus_per_worker: float | None,
) -> None:
    """Train on ``workers`` processes of Ray Train, the run's folder written by the first of them.

    A worker that dies makes all of them start again from the last epoch, ``training.max_failures`` times.

    Args:
        gpus_per_worker: 0 or 1; None for 1 where there are as many as workers.
    """
    connect.connect(dashboard=True)
    gpus = _gpus(workers) if gpus_per_worker is None else {"GPU": gpus_per_worker} if gpus_per_worker else {}
    # What each worker leaves of its last CPU is what the tasks that read the data run on.
    threads = most_cpus(connect.nodes(), gpus, workers, left=shards.READ_CPUS)
    resources = {"CPU": threads - shards.READ_CPUS} | gpus
    connect.require(workers, resources, "training workers")
    require_seen_by_nodes([f"{data.path_or_url}/{DATASET_FILE}", *external_paths(config)], run.output.shown)
    in_memory, line = fitting_splits(data, _memory_of_worker(workers, resources) // 2, workers)
    say(line)
    rows = shards.train_dataset(data, workers) if "train" in in_memory else None
    notes = run.output.within(".ray")
    with shared_progress(bar) as progress:
        run_config = RunConfig(
            name="train",
            **ray_storage(notes),
            failure_config=FailureConfig(max_failures=config.training.max_failures),
            callbacks=[_Failures(run, progress, config.training.max_failures)],  # type: ignore[list-item]  # as documented
        )
        job = _RunJob(config, data, workers, in_memory, run, progress)
        trainer = make_trainer(job, workers, resources, threads, run_config, rows)
        try:
            trainer.fit()
        except SystemExit:  # at Ctrl-C Ray stops the workers, then ends the process as if all were well
            raise KeyboardInterrupt from None
        except TrainingFailedError as error:
            raise _to_tell(error, run, config.training.max_failures) from error
        except (RayActorError, OutOfMemoryError) as error:  # not of a worker: of Ray Train's own, beside the driver
            raise _given_up(error, run) from error
        finally:
            notes.clear()  # Ray Train's own; a resume goes by last/
            run.output.fetch()


def _gpus(workers: int) -> dict[str, float]:
    """Return what each worker gets of GPUs where nothing was asked for, and say it."""
    found = room(connect.nodes(), {"GPU": 1, "CPU": 1 - shards.READ_CPUS})
    if found >= workers:
        say(f"{amount(workers, 'worker')}, each with a GPU.")
        return {"GPU": 1}
    if found:
        say(
            f"{amount(workers, 'worker')} without GPUs, as there {'are' if found > 1 else 'is'} but {found} for them."
            f" With --workers {found} --gpus-per-worker 1 each has one."
        )
    else:
        say(f"{amount(workers, 'worker')} without GPUs, as the cluster has none for them.")
    return {}


def _memory_of_worker(workers: int, resources: Mapping[str, float]) -> int:
    """Return the available memory for a worker, in bytes, on the node with the least."""
    counts = {
        node["NodeID"]: min(workers, count)
        for node in ray.nodes()
        if node["Alive"] and (count := fitting(node["Resources"], resources))
    }
    ask = ray.remote(num_cpus=0)(available_memory)
    tasks = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote() for id in counts]
    return min(memory // count for memory, count in zip(ray.get(tasks), counts.values(), strict=True))


class WorkerJob(Protocol):
    """What several workers train together; each of them gets a copy."""

    def begin(self) -> None:
        """Make ready; called in the first worker alone."""

    def train(self, rank: int, report: Report) -> None:
        """Train on the share of the worker of this rank, as ``fit`` does."""

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Keep an epoch; called in the first worker alone."""


def make_trainer(
    job: WorkerJob,
    workers: int,
    resources: dict[str, float],
    threads: int,
    run_config: RunConfig,
    rows: ray.data.Dataset | None = None,
) -> TorchTrainer:
    """Return what trains a job on ``workers`` processes of Ray Train.

    Args:
        resources: of one worker, as Ray names them.
        threads: of one worker.
        run_config: where Ray Train notes what, and what it does about failures.
        rows: to be split over the workers, which get them by ``ray.train.get_dataset_shard("train")``; None where they
            have rows by other means.
    """
    # Ray Train shows each worker the GPUs of all on its node, and touches the first one where a worker asked for none.
    os.environ |= {ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV: "0", connect.OWN_GPUS: "1"}
    ENV_VARS_TO_PROPAGATE.update({ENABLE_SHARE_CUDA_VISIBLE_DEVICES_ENV, connect.OWN_GPUS})
    return TorchTrainer(
        _work,
        train_loop_config={"job": job, "threads": threads},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=resources.get("GPU", 0) > 0, resources_per_worker=resources
        ),
        run_config=run_config,
        datasets=None if rows is None else {"train": rows},
        dataset_config=DataConfig(datasets_to_split=["train"]),
    )


def _work(loop: dict[str, Any]) -> None:
    """Train on one Ray Train worker."""
    job: WorkerJob = loop["job"]
    torch.set_num_threads(loop["threads"])
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        job.begin()

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        # Without ray.train.report, which waits until Ray Train's controller asks, each 2 s: nobody reads its results.
        if rank == 0:
            job.record(metrics, snapshot)

    job.train(rank, report)


class _Failures(UserCallback):
    """Ends a run at an error of the user's, which would come again, and says when another one makes it start again.

    Args:
        most: failures after which Ray Train starts the workers again.
    """

    def __init__(self, run: RunFolder, progress: Any, most: int):
        self._run, self._progress, self._most, self._count = run, progress, most, 0
        self._failures = FailureReader(concurrent=1)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        rank, error = first_failure(worker_exceptions)
        failure = self._failures.read(error)
        count_failure("train", failure.kind)
        for error in worker_exceptions.values():
            if isinstance(error, FerRayError):
                raise error  # an error in a callback is one that Ray Train never tries again after
        self._count += 1
        if self._count <= self._most:
            self._run.output.fetch()
            self._progress.say.remote(
                f"{_describe_failure(rank, failure)}. Starting again after epoch {len(self._run.history())}:"
                f" failure {self._count} of {self._most} allowed (training.max_failures)."
            )


def first_failure(errors: Mapping[int, Exception]) -> tuple[int, Exception]:
    """Return the rank and error from which those of the other workers follow."""
    # What Ray itself says of a worker comes first: with a process lost, errors of others follow from that.
    rank, error = min(errors.items(), key=lambda item: not type(item[1]).__module__.startswith("ray."))
    return rank, getattr(error, "health_check_failure", error)  # of a process that is gone


def _describe_failure(rank: int, failure: Failure) -> str:
    return f"worker {rank}: {failure.text.splitlines()[0].rstrip('.')}"


def _to_tell(error: TrainingFailedError, run: RunFolder, most: int) -> Exception:
    """Return what the user needs to hear of the end of a run."""
    if isinstance(error, WorkerGroupError):
        rank, first = first_failure(error.worker_failures)
        what = _describe_failure(rank, FailureReader(concurrent=1).read(first))
        return FerRayError(
            f"{what}: one failure more than training.max_failures = {most} allows. Ray's log folder,"
            f" /tmp/ray/session_latest/logs, says more. {run.what_is_kept()}"
        )
    cause = getattr(error, "controller_failure", None)
    return cause if isinstance(cause, FerRayError) else error


def _given_up(error: Exception, run: RunFolder) -> FerRayError:
    """Return what the user needs to hear where Ray Train itself was lost."""
    try:
        connect.require_running()
    except FerRayError as died:
        return FerRayError(f"{died} {run.what_is_kept()}")
    what = f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}"
    return FerRayError(f"Ray gave the run up, {what}. {run.what_is_kept()}")


@dataclass(frozen=True)
class _RunJob:
    """The run of ``fer-ray train``, whose folder the first worker writes."""

    config: Config
    dataset: PreparedDataset
    workers: int
    in_memory: list[str]
    run: RunFolder
    progress: Any

    def begin(self) -> None:
        self.run.output.fetch()
        self.run.catch_up()
        self.progress.start_at.remote(len(self.run.history()) * self.dataset.labelled("train"))

    def train(self, rank: int, report: Report) -> None:
        if rank:
            self.run.output.fetch()
        with memory_errors(advice(self.config.training)):
            fit(self.config, self._rows(rank), report, self.progress.add.remote, self.run.resumable())

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        self.run.record(metrics, snapshot)
        self.progress.epoch.remote(metrics)
        self.progress.say.remote(describe_epoch(metrics))

    def _rows(self, rank: int) -> TrainingData:
        data, workers = self.dataset, self.workers
        if "train" in self.in_memory:
            train = shards.drain(ray.train.get_dataset_shard("train"), data, rank, workers)
        else:
            train = data.load("train", mapped=True).share(rank, workers)
        validation = data.load("validation", mapped="validation" not in self.in_memory).share(rank, workers)
        return TrainingData(train, validation, data.info)
