"""Training on several processes through Ray Train, with shards of Ray Data."""

import threading
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
import torch
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from fer_ray import runtime
from fer_ray.config import Config
from fer_ray.data import shards
from fer_ray.data.placement import Placement
from fer_ray.data.store import PreparedDataset
from fer_ray.errors import FerRayError
from fer_ray.learning.loop import Metrics, Snapshot, fit
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.run_folder import RunFolder, describe_epoch
from fer_ray.progress import ProgressBar, say


def train_on_ray(
    config: Config,
    data: PreparedDataset,
    run: RunFolder,
    bar: ProgressBar,
    workers: int,
    gpus_per_worker: float,
    memory: int,
) -> None:
    """Train on ``workers`` processes of Ray Train, the run's folder written by the first of them.

    A worker that dies makes all of them start again from the last epoch, ``training.max_failures`` times.

    Args:
        memory: bytes that the rows may take on a machine.
    """
    runtime.connect(dashboard=True)
    threads = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
    # What each worker leaves of its last CPU is what the tasks that read the data run on.
    resources = {"CPU": threads - shards.READ_CPUS} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    runtime.require(workers, resources, "training workers")
    placement = Placement(data, workers, memory // min(workers, runtime.most_on_a_node(resources)))
    placement.require_room(-(-config.training.batch_size // workers))
    say(str(placement))
    held = placement.holds("train")
    progress = ray.remote(num_cpus=0)(_Progress).remote()
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "config": config,
            "placement": placement,
            "run": run,
            "progress": progress,
            "threads": threads,
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=".ray",
            storage_path=str(run.path),
            failure_config=FailureConfig(max_failures=config.training.max_failures),
            callbacks=[_Failures(run, progress, config.training.max_failures)],  # type: ignore[list-item]  # as documented
        ),
        datasets={"train": shards.train_dataset(data, workers)} if held else None,
        dataset_config=DataConfig(datasets_to_split=["train"]),
    )
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(progress, bar, done))
    watcher.start()
    try:
        trainer.fit()
    except SystemExit:  # at Ctrl-C Ray stops the workers, then ends the process as if all were well
        raise KeyboardInterrupt from None
    except TrainingFailedError as error:
        raise _to_tell(error, run, config.training.max_failures) from error
    finally:
        done.set()
        watcher.join()


class _Failures(UserCallback):
    """Ends a run at an error of the user's, which would come again, and says when another one makes it start again.

    Args:
        most: failures after which Ray Train starts the workers again.
    """

    def __init__(self, run: RunFolder, progress: Any, most: int):
        self._run, self._progress, self._most, self._count = run, progress, most, 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, FerRayError):
                raise error  # an error in a callback is one that Ray Train never tries again after
        self._count += 1
        if self._count <= self._most:
            self._progress.say.remote(
                f"{_first_failure(worker_exceptions)}. Starting again after epoch {len(self._run.history())}: failure"
                f" {self._count} of {self._most} allowed (training.max_failures)."
            )


def _first_failure(errors: Mapping[int, Exception]) -> str:
    # What Ray itself says of a worker comes first: with a process lost, errors of others follow from that.
    rank, error = min(errors.items(), key=lambda item: not type(item[1]).__module__.startswith("ray."))
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return f"worker {rank}: {reason[0].rstrip('.')}"


def _to_tell(error: TrainingFailedError, run: RunFolder, most: int) -> Exception:
    """Return what the user needs to hear of the end of a run."""
    if isinstance(error, WorkerGroupError):
        return FerRayError(
            f"{_first_failure(error.worker_failures)}: one failure more than training.max_failures = {most} allows."
            f" Ray's log folder, /tmp/ray/session_latest/logs, says more. {run.what_is_kept()}"
        )
    cause = getattr(error, "controller_failure", None)
    return cause if isinstance(cause, FerRayError) else error


class _Progress:
    """Keeps, for all workers, how many images were trained on and what is to be said."""

    def __init__(self) -> None:
        self.images, self.lines = 0, list[str]()

    def start_at(self, images: int) -> None:
        self.images = images

    def add(self, images: int) -> None:
        self.images += images

    def say(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> tuple[int, list[str]]:
        """Return the images since the beginning of the run, and the lines since the last look."""
        lines, self.lines = self.lines, []
        return self.images, lines


def _watch(progress: Any, bar: ProgressBar, done: threading.Event) -> None:
    while True:
        last = done.wait(0.5)
        images, lines = ray.get(progress.take.remote())
        bar.advance(max(images, bar.start) - bar.done)
        for line in lines:
            say(line)
        if last:
            return


def _work(job: dict[str, Any]) -> None:
    """Train on one Ray Train worker."""
    config, placement, run, progress = job["config"], job["placement"], job["run"], job["progress"]
    torch.set_num_threads(job["threads"])
    context = ray.train.get_context()
    rank = context.get_world_rank()
    if rank == 0:
        run.catch_up()
        progress.start_at.remote(len(run.history()) * placement.dataset.labelled("train"))

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        if rank == 0:
            run.record(metrics, snapshot)
            progress.say.remote(describe_epoch(metrics))
        ray.train.report(metrics)

    fit(config, _rows(placement, rank), report, progress.add.remote, run.resumable())


def _rows(placement: Placement, rank: int) -> TrainingData:
    data, workers = placement.dataset, placement.workers
    return TrainingData(
        shards.drain(ray.train.get_dataset_shard("train"), data, rank, workers)
        if placement.holds("train")
        else placement.load("train", rank),
        shards.validation_shard(data, rank, workers)
        if placement.holds("validation")
        else placement.load("validation", rank),
        data.info,
    )
