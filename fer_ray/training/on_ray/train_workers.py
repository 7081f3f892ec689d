"""Training on several processes through Ray Train, with shards of Ray Data."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import DataConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_ray.cluster import connect
from fer_ray.cluster.connect import ray_storage
from fer_ray.cluster.failures import Failure, FailureReader, advice
from fer_ray.cluster.memory import available_memory, first_line, memory_errors
from fer_ray.cluster.metrics import count_failure
from fer_ray.cluster.node_checks import external_paths, require_seen_by_nodes
from fer_ray.cluster.ray_patches import failed_starts_are_failures, own_gpus_for_train_workers
from fer_ray.cluster.resources import fitting, most_cpus, room
from fer_ray.config.schema import Config
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import amount
from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import FerRayError
from fer_ray.storage.output import Output
from fer_ray.training.loop import fit
from fer_ray.training.on_ray import shards
from fer_ray.training.on_ray.shared_progress import ProgressSender, shared_progress
from fer_ray.training.requirements import batch_note
from fer_ray.training.rows import TrainingData, fitting_splits
from fer_ray.training.run_folder import BackgroundReport, Metrics, RunFolder, Snapshot, describe_epoch

MOST_WAITS = 30
"""How often the workers of a run wait 60 s for their resources, such as for the replacement of a lost node. Without a
limit Ray Train would wait for ever."""


def train_on_ray(
    config: Config, data: PreparedDataset, run: RunFolder, bar: ProgressBar, workers: int, gpus_per_worker: float | None
) -> None:
    """Train on ``workers`` processes of Ray Train. The first one writes the run's folder.

    When a worker dies, all of them restart from the last epoch, up to ``training.max_failures`` times. Each has 0 or 1
    GPU; with None 1 if the cluster has as many GPUs as workers, else 0.
    """
    connect.connect(dashboard=True)
    gpus = _gpus(workers) if gpus_per_worker is None else {"GPU": gpus_per_worker} if gpus_per_worker else {}
    # Tasks that read the data run on the fraction of a CPU that each worker leaves free.
    threads = most_cpus(connect.nodes(), gpus, workers, left=shards.READ_CPUS)
    resources = {"CPU": threads - shards.READ_CPUS} | gpus
    connect.require(workers, resources, "training workers")
    require_seen_by_nodes([f"{data.path_or_url}/{DATASET_FILE}", *external_paths(config)], run.output.path_or_url)
    in_memory, line = fitting_splits(data, _memory_of_worker(workers, resources) // 2, workers)
    say(line)
    if note := batch_note(config, workers, bool(gpus)):
        say(note)
    rows = shards.train_dataset(data, workers) if "train" in in_memory else None
    notes = run.output.within(".ray")
    with shared_progress(bar, describe_epoch) as progress:
        work = partial(
            _train_worker, config=config, data=data, workers=workers, in_memory=in_memory, run=run, progress=progress
        )
        most = config.training.max_failures
        trainer = make_trainer(work, workers, resources, threads, notes, most, [_Failures(run, progress, most)], rows)
        try:
            trainer.fit()
        except SystemExit:  # on Ctrl-C Ray stops the workers, then exits with status 0
            raise KeyboardInterrupt from None
        except (TrainingFailedError, RayActorError, OutOfMemoryError) as error:
            raise _explained(error, run, most) from error
        finally:
            notes.clear()  # Ray Train's own files; a resume reads last/
            run.output.fetch()


def _gpus(workers: int) -> dict[str, float]:
    """Return the GPUs of each worker where none were requested, and print the choice."""
    found = room(connect.nodes(), {"GPU": 1, "CPU": 1 - shards.READ_CPUS})
    if found >= workers:
        say(f"{amount(workers, 'worker')}, each with one GPU.")
        return {"GPU": 1}
    why = f"has GPUs for only {found}. With --workers {found} --gpus-per-worker 1 each worker has one."
    say(f"{amount(workers, 'worker')} without GPUs: the cluster {why if found else 'has no free GPU.'}")
    return {}


def _memory_of_worker(workers: int, resources: Mapping[str, float]) -> int:
    """Return the memory in bytes available to each worker, the minimum over the nodes that have room for one."""
    counts = {
        node["NodeID"]: min(workers, count)
        for node in ray.nodes()
        if node["Alive"] and (count := fitting(node["Resources"], resources))
    }
    ask = ray.remote(num_cpus=0)(available_memory)
    tasks = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote() for id in counts]
    return min(memory // count for memory, count in zip(ray.get(tasks), counts.values(), strict=True))


def make_trainer(
    work: Callable[[int], None],
    workers: int,
    resources: dict[str, float],
    threads: int,
    notes: Output,
    max_failures: int,
    callbacks: Sequence[UserCallback] = (),
    rows: ray.data.Dataset | None = None,
) -> TorchTrainer:
    """Return a trainer that calls ``work`` with its rank in each of several workers of Ray Train.

    ``notes`` is for the files of Ray Train. The workers restart ``max_failures`` times after one was lost. ``rows`` are
    split over them (``ray.train.get_dataset_shard("train")``); None if they read rows themselves.
    """
    own_gpus_for_train_workers()
    failed_starts_are_failures()
    return TorchTrainer(
        _call_with_rank,
        train_loop_config={"work": work, "threads": threads},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources),
        run_config=RunConfig(
            name="train",
            **ray_storage(notes),
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=MOST_WAITS - 1),
            callbacks=list(callbacks),  # type: ignore[arg-type]  # as documented
        ),
        datasets=None if rows is None else {"train": rows},
        dataset_config=DataConfig(datasets_to_split=["train"]),
    )


def _call_with_rank(loop: dict[str, Any]) -> None:
    torch.set_num_threads(loop["threads"])
    loop["work"](ray.train.get_context().get_world_rank())


class _Failures(UserCallback):
    """Ends a run at a user's error, which a retry would repeat, and prints why a run restarts after other errors."""

    def __init__(self, run: RunFolder, progress: Any, most: int):
        self._run, self._progress, self._most, self._count = run, progress, most, 0
        self._failures = FailureReader(concurrent=1)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        rank, error = first_failure(worker_exceptions)
        failure = self._failures.read(error)
        count_failure("train", failure.kind)
        for error in worker_exceptions.values():
            if isinstance(error, FerRayError):
                raise error  # Ray Train never retries after an error in a callback
        self._count += 1
        if self._count <= self._most:
            self._run.output.fetch()
            self._progress.put.remote(
                f"{_describe_failure(rank, failure)}. Restarting after epoch {len(self._run.history())}:"
                f" failure {self._count} of {self._most} allowed (training.max_failures)."
            )


def first_failure(errors: Mapping[int, Exception]) -> tuple[int, Exception]:
    """Return the rank and error that caused the errors of the other workers."""
    # Ray's own errors come first: when a process is lost, the other workers' errors follow from that.
    rank, error = min(errors.items(), key=lambda item: not type(item[1]).__module__.startswith("ray."))
    return rank, getattr(error, "health_check_failure", error)


def _describe_failure(rank: int, failure: Failure) -> str:
    return f"worker {rank}: {first_line(failure.text)}"


def _explained(error: Exception, run: RunFolder, most: int) -> Exception:
    cause = getattr(error, "controller_failure", error)
    if isinstance(error, WorkerGroupError):
        rank, first = first_failure(error.worker_failures)
        what = _describe_failure(rank, FailureReader(concurrent=1).read(first))
        what += f": one failure more than training.max_failures = {most} allows"
    elif isinstance(error, RayActorError | OutOfMemoryError):
        what = f"Ray Train's controller was lost, {type(error).__name__}: {first_line(error)}"
        try:
            connect.require_running()
        except FerRayError as died:
            return FerRayError(f"{died} {run.what_is_kept()}")
    elif type(cause).__name__.startswith("WorkerGroupStartup"):  # a private class of Ray Train
        what = f"the workers did not start: {first_line(cause)}"
    else:
        return cause if isinstance(cause, FerRayError) else error
    return FerRayError(f"{what}. See also Ray's logs in /tmp/ray/session_latest/logs. {run.what_is_kept()}")


def _train_worker(
    rank: int, config: Config, data: PreparedDataset, workers: int, in_memory: list[str], run: RunFolder, progress: Any
) -> None:
    """Train on one of several workers. The first one writes the run's folder and sends its progress.

    ``ray.train.report`` would block for up to 2 s until Ray Train's controller polls, and nobody reads its results.
    """
    run.output.fetch()
    with memory_errors(advice(config.training)):
        if rank:
            rows = _rows_of_worker(rank, data, workers, in_memory)
            fit(config, rows, lambda metrics, snapshot: None, resume_from=run.resumable())
            return
        sender = ProgressSender(progress, len(run.catch_up()), data.labelled("train"), workers)

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            record(metrics, snapshot)
            sender.finish_epoch(metrics)

        with BackgroundReport(run) as record:
            fit(config, _rows_of_worker(0, data, workers, in_memory), report, sender.add, run.resumable())
        sender.flush()


def _rows_of_worker(rank: int, data: PreparedDataset, workers: int, in_memory: list[str]) -> TrainingData:
    if "train" in in_memory:
        train = shards.drain(ray.train.get_dataset_shard("train"), data, rank, workers)
    else:
        train = data.load("train", True, rank, workers)
    validation = data.load("validation", "validation" not in in_memory, rank, workers)
    return TrainingData(train, validation, data.info)
