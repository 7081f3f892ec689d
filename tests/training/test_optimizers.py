"""Everything that changes a step: optimizers, unfreezing, parts of a batch, averages; with one and with two workers."""

import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, RunFolder, Snapshot

ROWS = 45
"""Odd, and 1 more than a multiple of 4: two workers and one worker alike share the last image with another step."""
UNFREEZE = ["schedule.head_epochs=1", "schedule.unfreeze_epochs=1"]
ALL = [*UNFREEZE, "training.accumulate=2", "training.ema=0.9", "optimizer.clip_norm=1", "augment.mixup=0.4"]
WAYS = {
    "sgd, head alone": ["optimizer.name=sgd", "schedule.head_epochs=1"],
    "sgd, layer decay": ["optimizer.name=sgd", *UNFREEZE, "optimizer.layer_decay=0.5"],
    "sgd, average": ["optimizer.name=sgd", "training.ema=0.9", "augment.cutmix=1", "augment.cutout=0.3"],
    "sgd, plateau": ["optimizer.name=sgd", "schedule.name=plateau", "schedule.plateau_patience=1"],
    **{f"{name}, all": [f"optimizer.name={name}", *ALL] for name in ("sgd", "adam", "adamw")},
}


def config(*options: str) -> Config:
    small = ["model.name=fast", "training.batch_size=8", "training.epochs=3", "optimizer.learning_rate=1e-3"]
    return load_config(None, [*small, *options])


@pytest.fixture(scope="module")
def data(tiny_data: TrainingData) -> TrainingData:
    rows, held_out = tiny_data.train.take(np.arange(ROWS)), tiny_data.validation.take(np.arange(9))
    return TrainingData(rows, held_out, tiny_data.info)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_after_each_epoch_equals_a_whole_one(way: str, data: TrainingData, tmp_path: Path) -> None:
    settings, seen = config(*WAYS[way]), list[int]()
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
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


@pytest.mark.slow
def test_two_workers_train_one_network(data: TrainingData, tmp_path: Path) -> None:
    """Each row counts once, and after each epoch both have the same weights."""
    shares = [TrainingData(data.train.share(rank, 2), data.validation.share(rank, 2), data.info) for rank in range(2)]
    mp.spawn(_train_all, (shares, tmp_path), nprocs=2)
    for way in WAYS:
        first, second = (torch.load(tmp_path / f"{way} {rank}", weights_only=True) for rank in range(2))
        assert sum(first["seen"]) + sum(second["seen"]) == 3 * ROWS and min(first["seen"] + second["seen"]) >= 2
        assert [line["validation_rows"] for line in first["history"]] == [9, 9, 9]
        counters = {key for key in first["weights"] if key.endswith("num_batches_tracked")}  # parts may differ by one
        different = {key for key, tensor in first["weights"].items() if not torch.equal(tensor, second["weights"][key])}
        assert different <= counters, way


def _train_all(rank: int, shares: Sequence[TrainingData], folder: Path) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=60), world_size=2, rank=rank)
    for way, options in WAYS.items():
        history, seen, kept = list[Metrics](), list[int](), dict[str, torch.Tensor]()

        def note(metrics: Metrics, snapshot: Snapshot, history: Any = history, kept: Any = kept) -> None:
            history.append(metrics)
            kept |= {key: tensor.clone() for key, tensor in snapshot._weights.items()}

        fit(config(*options), shares[rank], note, seen.append)
        torch.save({"history": history, "seen": seen, "weights": kept}, folder / f"{way} {rank}")
    dist.destroy_process_group()


def test_stages_are_unfrozen_with_all_that_is_in_them(data: TrainingData) -> None:
    """In the first epoch plain SGD moves the head alone, in the last one every parameter."""
    snapshots: list[dict[str, torch.Tensor]] = []

    def keep(metrics: Metrics, snapshot: Snapshot) -> None:
        snapshots.append({key: tensor.clone() for key, tensor in snapshot._weights.items() if "num_batches" not in key})

    options = ["optimizer.name=sgd", *UNFREEZE, "training.epochs=6", "optimizer.learning_rate=0.01"]
    fit(config(*options), data, keep)
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
        (23, 11, 5, [7, 8, 8]),
    ],
)
def test_each_part_has_two_images(rows: int, batch: int, accumulate: int, steps: list[int], data: TrainingData) -> None:
    seen, some = list[int](), TrainingData(data.train.take(np.arange(rows)), data.validation, data.info)
    options = [f"training.batch_size={batch}", f"training.accumulate={accumulate}", "training.epochs=1"]
    fit(config(*options), some, lambda metrics, snapshot: None, seen.append)
    assert sorted(seen) == steps and sum(seen) == rows
