"""Training on several processes through Ray Train, with shards of Ray Data."""

import threading
from typing import Any

import ray
import ray.train
import torch
from ray.train import DataConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from fer_ray import runtime
from fer_ray.config import Config
from fer_ray.data import shards
from fer_ray.data.store import PreparedDataset
from fer_ray.errors import FerRayError
from fer_ray.learning.loop import Metrics, Snapshot, fit
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.run_folder import RunFolder, describe_epoch
from fer_ray.progress import ProgressBar, say


def train_on_ray(
    config: Config, data: PreparedDataset, run: RunFolder, bar: ProgressBar, workers: int, gpus_per_worker: float
) -> None:
    """Train on ``workers`` processes of Ray Train, the run's folder written by the first of them."""
    runtime.connect(dashboard=True)
    threads = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
    # What each worker leaves of its last CPU is what the tasks that read the data run on.
    resources = {"CPU": threads - shards.READ_CPUS} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    runtime.require(workers, resources, "training workers")
    progress = ray.remote(num_cpus=0)(_Progress).remote()
    trainer = TorchTrainer(
        _work,
        train_loop_config={"config": config, "data": data, "run": run, "progress": progress, "threads": threads},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(name=".ray", storage_path=str(run.path)),
        datasets={"train": shards.train_dataset(data)},
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
        for cause in getattr(error, "worker_failures", {}).values():
            if isinstance(cause, FerRayError):
                raise cause from error
        raise
    finally:
        done.set()
        watcher.join()


class _Progress:
    """Adds up, for all workers, the images trained on since the last look."""

    def __init__(self) -> None:
        self.images, self.lines = 0, list[str]()

    def add(self, images: int) -> None:
        self.images += images

    def say(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> tuple[int, list[str]]:
        news = self.images, self.lines
        self.images, self.lines = 0, []
        return news


def _watch(progress: Any, bar: ProgressBar, done: threading.Event) -> None:
    while True:
        last = done.wait(0.5)
        images, lines = ray.get(progress.take.remote())
        bar.advance(images)
        for line in lines:
            say(line)
        if last:
            return


def _work(job: dict[str, Any]) -> None:
    """Train on one Ray Train worker."""
    config, data, run, progress = job["config"], job["data"], job["run"], job["progress"]
    torch.set_num_threads(job["threads"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    rows = TrainingData(
        shards.drain(ray.train.get_dataset_shard("train"), data.info.size),
        shards.validation_shard(data, rank, workers),
        data.info,
    )

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        if rank == 0:
            run.record(metrics, snapshot)
            progress.say.remote(describe_epoch(metrics))
        ray.train.report(metrics)

    fit(config, rows, report, progress.add.remote, run.resumable())
