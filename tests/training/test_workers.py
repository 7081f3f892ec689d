"""Training on several workers: no row left out, GPUs, a killed worker, and errors that are not tried again."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets_made import numbers_in, write_prepared
from out_of_memory import ERRORS
from process_tree import descendants
from ray import cloudpickle
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from fer_ray.cluster import connect
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.errors import UsageError
from fer_ray.inference.calibration import fit_temperature
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.network import Network
from fer_ray.train import train
from fer_ray.training.on_ray import shards, train_workers
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import RunFolder

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests
DRIVER = os.getpid()


def config(*overrides: str) -> Config:
    quick = ["model.name=lenet", "optimizer.name=adam", "optimizer.learning_rate=2e-3", "training.batch_size=64"]
    return load_config(None, [*quick, *overrides])


def memory_of_a_worker() -> int:
    assert os.getpid() != DRIVER, "asked for on the driver's machine"
    return 1_000_000


def test_two_workers_learn(
    tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a size that two does not divide, each validation row counts once; and the driver leaves GPUs alone."""

    def touched(*arguments: Any) -> bool:
        raise AssertionError("the driver looks for a GPU")

    for name in ("is_available", "current_device", "mem_get_info", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(train_workers, "available_memory", memory_of_a_worker)
    settings = config("training.epochs=4", "model.name=cnn3", "optimizer.learning_rate=4e-3")
    two = train(tiny_dataset.path, settings, tmp_path / "two", workers=2)
    monkeypatch.undo()
    said, rows = capsys.readouterr().err, tiny_dataset.labelled("validation")
    assert "2 workers without GPUs" in said and "limit 244.1 KiB a worker" in said  # half of a half
    assert rows % 2 == 1 and [line["validation_rows"] for line in two.history] == [rows] * 4
    assert two.best["validation_accuracy"] > 0.35
    files = {path.name for path in (tmp_path / "two").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "curves.png", "checkpoint", "last"} <= files and ".ray" not in files
    best = load_checkpoint(two.checkpoint)
    assert best.info.epoch == two.best["epoch"]
    # Calibrated on the rows of both workers, not on one worker's half.
    plain, validation = best.info.model_copy(update={"temperature": 1.0}), tiny_dataset.load("validation")
    logits = Network(Checkpoint(best.model, plain)).logits(validation.images)[0].numpy()
    assert best.info.temperature == pytest.approx(fit_temperature(logits, validation.labels), rel=1e-3)


def test_shards_leave_no_row_out(tmp_path: Path, ray_cluster: None) -> None:
    """1,000 labelled rows of 1,100 for three workers: 334, 333 and 333."""
    labels = [None if number % 11 == 5 else number % 7 for number in range(1100)]
    dataset = write_prepared(tmp_path / "data", {"train": labels}, soft=True)
    parts = shards.train_dataset(dataset, 3).streaming_split(3, equal=True)
    splits = dict[int, Split]()

    def drain(rank: int) -> None:
        splits[rank] = shards.drain(parts[rank], dataset, rank, 3)

    threads = [threading.Thread(target=drain, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [numbers_in(splits[rank].images) for rank in range(3)]
    assert all((split.soft_labels.argmax(1) == split.labels).all() for split in splits.values())
    assert [len(own) for own in numbers] == [334, 333, 333]
    labelled = [number for number, label in enumerate(labels) if label is not None]
    assert sorted(number for own in numbers for number in own) == labelled


@pytest.mark.slow  # Ray Train takes half a minute to replace its worker processes
def test_rows_that_do_not_fit_are_mapped_and_a_killed_worker_restarts(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_workers, "_memory_of_worker", lambda workers, resources: 650_000)
    labels, run = [label for label in range(7) for _ in range(571)], RunFolder(tmp_path / "run")
    dataset = write_prepared(tmp_path / "data", {"train": labels, "validation": labels[::30]})
    others, killed = workers_here(), set[int]()  # the others are of previous runs, about to end

    def kill_one() -> None:
        while not killed:
            time.sleep(0.05)
            if (run.path / "metrics.jsonl").is_file() and (victims := workers_here() - others):
                killed.add(min(victims))
                os.kill(min(victims), signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    settings = config("model.name=cnn3", "training.epochs=8", "training.batch_size=32")
    result = train(dataset.path, settings, run.path, workers=2)
    assert [line["epoch"] for line in run.history()] == list(range(1, 9)) and killed
    assert {line["validation_rows"] for line in result.history} == {134}
    profile, said = result.profile, capfd.readouterr().err
    assert profile is not None and profile.mapped and profile.workers == 2
    assert "train 1,999 rows × 192 bytes = 374.8 KiB, memory-mapped from disk" in said
    assert "its process or node was lost. Restarting after epoch" in said and "failure 1 of 2 allowed" in said


def workers_here() -> set[int]:
    """The ids of Ray Train's workers, of the processes that this one has started."""
    started = descendants(os.getpid())
    return {process.pid for process, command in started.items() if command.startswith("ray::RayTrainWorker")}


def test_losses_are_told_with_what_is_whole(ray_cluster: None, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    lost = WorkerGroupError("", {0: RuntimeError("gloo: connection closed"), 1: ActorDiedError()})  # 0 follows from 1
    told = str(train_workers._explained(lost, run, 0))
    assert "worker 1: its process or node was lost: one failure more than training.max_failures = 0 allows" in told
    assert "controller was lost, ActorDiedError" in str(train_workers._explained(ActorDiedError(), run, 0))
    failed = ControllerError(WorkerGroupStartupFailedError("One of the worker actors failed to initialize."))
    assert "the workers did not start: One of the worker" in str(train_workers._explained(failed, run, 0))


def short_of_memory(rank: int, **options: Any) -> None:
    def fail(*arguments: Any) -> TrainingData:
        raise ERRORS["driver"]()

    train_workers._rows_of_worker = fail  # in the worker
    train_workers._train_worker(rank, **options)


@pytest.mark.slow  # worker processes of its own
def test_memory_that_runs_out_in_a_worker_is_not_tried_again(
    tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules["out_of_memory"])
    monkeypatch.setattr(train_workers, "_train_worker", short_of_memory)
    with pytest.raises(UsageError, match=r"^out of memory: CUDA error: out of memory. Lower training.batch_size, now"):
        train(tiny_dataset.path, config(), tmp_path / "run", workers=2, gpus_per_worker=0)
    assert "Restarting" not in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "said"),
    [
        ([{"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}], 2, {"GPU": 1}, "2 workers, each with one GPU."),
        ([{"CPU": 16, "GPU": 2}], 3, {}, "has GPUs for only 2. With --workers 2 --gpus-per-worker 1 each"),
        ([{"CPU": 1, "GPU": 4}, {"CPU": 15}], 2, {}, "has GPUs for only 1."),  # its node has no CPU for another
        ([{"CPU": 16}], 2, {}, "2 workers without GPUs: the cluster has no free GPU."),
    ],
)
def test_workers_have_a_gpu_each_where_there_are_as_many(
    nodes: Any, workers: int, gpus: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect, "nodes", lambda: nodes)
    assert train_workers._gpus(workers) == gpus and said in capsys.readouterr().err


def test_more_than_the_cluster_holds(tiny_dataset: PreparedDataset, tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(UsageError, match=r"9 × \(0\.9 CPU\) requested, room for 2"):
        train(tiny_dataset.path, config(), tmp_path / "run", workers=9)
    with pytest.raises(UsageError, match="1 GPU"):
        train(tiny_dataset.path, config(), tmp_path / "run", gpus_per_worker=1)
