"""Several workers and GPUs: what is refused, what the driver leaves alone, and memory that runs out in a worker."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from out_of_memory import ERRORS
from ray import cloudpickle

from fer_ray.cli import main
from fer_ray.cluster import connect
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.train import train
from fer_ray.training.on_ray import train_workers
from fer_ray.training.profile import RunProfile, bottleneck
from fer_ray.training.rows import TrainingData

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests
DRIVER = os.getpid()


def config(*overrides: str) -> Config:
    return load_config(None, ["model.name=lenet", "training.epochs=1", *overrides])


@pytest.mark.parametrize("gpus", ["0.5", "1.5", "2", "-1", "nan"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_computes_on_one_gpu(
    gpus: str, workers: str, tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--dataset", tiny_dataset.path, "--output", tmp_path / "run", "--workers", workers]
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, asked), "--gpus-per-worker", gpus])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert f"--gpus-per-worker {gpus}: must be 0 or 1. A process computes on one GPU: NCCL" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "said"),
    [
        ([{"CPU": 16, "GPU": 4}], 4, {"GPU": 1}, "4 workers, each with one GPU."),
        ([{"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}], 2, {"GPU": 1}, "2 workers, each with one GPU."),
        (
            [{"CPU": 16, "GPU": 2}],
            3,
            {},
            "has GPUs for only 2. With --workers 2 --gpus-per-worker 1 each worker has one.",
        ),
        ([{"CPU": 1, "GPU": 4}, {"CPU": 15}], 2, {}, "has GPUs for only 1."),  # its node has no CPU for another
        ([{"CPU": 16}], 2, {}, "2 workers without GPUs: the cluster has no free GPU."),
    ],
)
def test_workers_have_a_gpu_each_where_there_are_as_many(
    nodes: list[dict[str, float]],
    workers: int,
    gpus: dict[str, float],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connect, "nodes", lambda: nodes)
    assert train_workers._gpus(workers) == gpus
    assert said in capsys.readouterr().err


def memory_of_a_worker() -> int:
    assert os.getpid() != DRIVER, "asked for on the driver's machine"
    return 1_000_000


def test_the_driver_leaves_gpus_alone_and_asks_where_the_workers_run(
    tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def touched(*arguments: Any) -> bool:
        raise AssertionError("the driver looks for a GPU")

    for name in ("is_available", "current_device", "mem_get_info", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(train_workers, "available_memory", memory_of_a_worker)
    with pytest.raises(SystemExit) as end:
        asked = ["--dataset", tiny_dataset.path, "--output", tmp_path / "run", "--workers", 2]
        main(["train", *map(str, asked), "--set", "model.name=lenet", "--set", "training.epochs=1"])
    assert end.value.code == 0
    said = capsys.readouterr().err
    assert "2 workers without GPUs" in said and "limit 244.1 KiB a worker" in said  # half of a half


def test_what_would_be_faster_is_told_of_the_device_that_trained() -> None:
    on_gpu = {"device": "cuda", "precision": "float32", "workers": 2, "streamed": False, "seconds": {"forward": 1.0}}
    assert "bfloat16" in bottleneck(RunProfile(**on_gpu, fast_bfloat16=True), False)
    assert "bfloat16" not in bottleneck(RunProfile(**on_gpu), False)


class ShortOfMemory(train_workers._RunJob):
    def _rows(self, rank: int) -> TrainingData:
        raise ERRORS["driver"]()


def test_memory_that_runs_out_in_a_worker_is_not_tried_again(
    tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules["out_of_memory"])
    monkeypatch.setattr(train_workers, "_RunJob", ShortOfMemory)
    with pytest.raises(UsageError, match=r"^out of memory: CUDA error: out of memory. Lower training.batch_size, now"):
        train(tiny_dataset.path, config(), tmp_path / "run", workers=2, gpus_per_worker=0)
    assert "Restarting" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
