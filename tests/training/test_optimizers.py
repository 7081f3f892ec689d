"""Each optimizer with whatever else changes a step: thawing, parts of a batch, averages; alone and with two workers."""

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.training.loop import fit
from fer_ray.training.metrics import Metrics
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import RunFolder, Snapshot

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
ROWS = 45
"""Odd, and 1 more than a multiple of 4: its last step has one image, shared by two workers as by one."""
WAYS = {
    "head": ["schedule.head_epochs=1"],
    "thaw": ["schedule.head_epochs=1", "schedule.unfreeze_epochs=1"],
    "thaw, layer decay": ["schedule.head_epochs=1", "schedule.unfreeze_epochs=1", "optimizer.layer_decay=0.5"],
    "accumulate": ["training.accumulate=2"],
    "ema": ["training.ema=0.9"],
    "all": [
        "schedule.head_epochs=1",
        "schedule.unfreeze_epochs=1",
        "training.accumulate=2",
        "training.ema=0.9",
        "optimizer.clip_norm=1",
    ],
}
COMBINATIONS = list(product(OPTIMIZERS, WAYS))


def config(optimizer: str, options: Sequence[str]) -> Config:
    small = ["model.name=fast", "training.batch_size=8", "training.epochs=3", "optimizer.learning_rate=1e-3"]
    return load_config(None, [*small, f"optimizer.name={optimizer}", *options])


@pytest.fixture(scope="module")
def data(tiny_dataset: PreparedDataset) -> TrainingData:
    whole = TrainingData.load(tiny_dataset)
    return TrainingData(whole.train.take(np.arange(ROWS)), whole.validation.take(np.arange(9)), whole.info)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small take many times as long where threads of a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize(("optimizer", "way"), COMBINATIONS)
def test_one_worker(optimizer: str, way: str, data: TrainingData, tmp_path: Path) -> None:
    """It trains, every row counts once, and a run killed after each epoch ends bit for bit as a whole one."""
    settings = config(optimizer, WAYS[way])
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    seen: list[int] = []
    fit(settings, data, whole.record, seen.append)
    assert len(whole.history()) == 3 and sum(seen) == 3 * ROWS and min(seen) >= 2

    def record_then_die(metrics: Metrics, snapshot: Snapshot) -> None:
        parts.record(metrics, snapshot)
        raise _KilledError

    for _ in range(3):
        with pytest.raises(_KilledError):
            fit(settings, data, record_then_die, resume_from=parts.resumable())
    expected, got = (torch.load(run.last / "training.pt", weights_only=True) for run in (whole, parts))
    assert _plain(got["optimizer"]) == _plain(expected["optimizer"])
    for folder in ("last", "checkpoint"):
        files = [tmp_path / run / folder / "model.safetensors" for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()
    measured = [[{**line, "images_per_s": 0, "seconds": 0} for line in run.history()] for run in (whole, parts)]
    assert measured[0] == measured[1]


def _plain(state: Any) -> Any:
    """A state with bytes in the place of its tensors."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_plain(value) for value in state]
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


@pytest.fixture(scope="module")
def of_two_workers(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every combination trained by the same two processes, what each rank saw in a file of its own."""
    folder = tmp_path_factory.mktemp("workers")
    shares = [TrainingData(data.train.share(rank, 2), data.validation.share(rank, 2), data.info) for rank in range(2)]
    mp.spawn(_train_all, (shares, folder), nprocs=2)
    return folder


def _train_all(rank: int, shares: Sequence[TrainingData], folder: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", timedelta(seconds=60), world_size=len(shares), rank=rank
    )
    for optimizer, way in COMBINATIONS:
        history, seen, kept = list[Metrics](), list[int](), list[dict[str, torch.Tensor]]()

        def note(metrics: Metrics, snapshot: Snapshot, history: Any = history, kept: Any = kept) -> None:
            history.append(metrics)
            kept[:] = [{key: tensor.clone() for key, tensor in snapshot._weights.items()}]

        fit(config(optimizer, WAYS[way]), shares[rank], note, seen.append)
        torch.save({"history": history, "seen": seen, "weights": kept[0]}, folder / f"{optimizer} {way} {rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize(("optimizer", "way"), COMBINATIONS)
def test_two_workers(optimizer: str, way: str, of_two_workers: Path) -> None:
    first, second = (torch.load(of_two_workers / f"{optimizer} {way} {rank}", weights_only=True) for rank in range(2))
    assert len(first["history"]) == 3
    assert sum(first["seen"]) + sum(second["seen"]) == 3 * ROWS and min(first["seen"] + second["seen"]) >= 2
    assert [line["validation_rows"] for line in first["history"]] == [9, 9, 9]
    counters = {key for key in first["weights"] if key.endswith("num_batches_tracked")}  # a worker may have more parts
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in set(first["weights"]) - counters)


def test_stages_thaw_with_all_that_is_in_them(data: TrainingData) -> None:
    """After the epoch of the head alone, plain SGD has moved that alone; after the last one every parameter."""
    snapshots: list[dict[str, torch.Tensor]] = []

    def keep(metrics: Metrics, snapshot: Snapshot) -> None:
        snapshots.append({key: tensor.clone() for key, tensor in snapshot._weights.items() if "num_batches" not in key})

    fit(config("sgd", [*WAYS["thaw"], "training.epochs=6", "optimizer.learning_rate=0.01"]), data, keep)
    moved = [
        {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
        for before, after in pairwise(snapshots)
    ]
    assert all(early < late for early, late in pairwise(moved[:4]))
    assert moved[-1] == set(snapshots[0])


@pytest.mark.parametrize(
    ("rows", "batch", "accumulate", "steps"),
    [
        (21, 2, 1, [2] * 9 + [3]),  # 11 steps would leave one image
        (21, 4, 2, [3] * 3 + [4] * 3),
        (5, 4, 2, [2, 3]),
        (3, 2, 1, [3]),
        (2, 64, 32, [2]),
        (33, 16, 8, [11, 11, 11]),
        (23, 11, 5, [7, 8, 8]),
    ],
)
def test_no_part_is_below_two_images(
    rows: int,
    batch: int,
    accumulate: int,
    steps: list[int],
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts: list[int] = []
    forward = nn.BatchNorm2d.forward

    def spied(norm: nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
        if norm.training:
            parts.append(len(images))
        return forward(norm, images)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", spied)
    some = TrainingData(data.train.take(np.arange(rows)), data.validation, data.info)
    seen: list[int] = []
    options = [f"training.batch_size={batch}", f"training.accumulate={accumulate}", "training.epochs=1"]
    fit(config("sgd", options), some, lambda metrics, snapshot: None, seen.append)
    assert sorted(seen) == steps and sum(seen) == rows
    assert min(parts) >= 2


@pytest.mark.parametrize(
    ("options", "rows", "problem"),
    [
        (["training.accumulate=5"], 45, r"training\.batch_size 8 / 1 worker / 5 = 1\.6\. .* to 10 or more"),
        (["training.batch_size=2", "training.accumulate=2"], 45, r"2 / 1 worker / 2 = 1\. "),
        ([], 1, "1 training image for 1 worker: each worker needs 2 or more"),
    ],
)
def test_what_leaves_parts_below_two_images(options: list[str], rows: int, problem: str, data: TrainingData) -> None:
    some = TrainingData(data.train.take(np.arange(rows)), data.validation, data.info)
    with pytest.raises(UsageError, match=problem):
        fit(config("sgd", options), some, lambda metrics, snapshot: pytest.fail("trained"))
