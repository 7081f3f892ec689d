"""Measure the cost of a trial by a few training steps: time and memory."""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.dataset.store import DatasetInfo, Split
from fer_ray.inference.device import pick_device
from fer_ray.inference.network import EVAL_BATCH
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Snapshot
from fer_ray.training.schedules import image_size

_SECONDS, _MOST_STEPS = 0.5, 100
"""A measured epoch has enough steps to take half a second, if the dataset has enough rows."""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class TrialCost:
    """Cost of one process of a trial.

    Attributes:
        train: seconds per training image, by the side of the images in pixels.
        validate: seconds per validation image.
        save: seconds to write the checkpoints after an epoch that is the best so far.
        memory: peak memory of the process in bytes, including its rows.
        gpu_memory: bytes of GPU memory that PyTorch reserved, including the rows; 0 on a CPU.
        gpu_size: bytes of the GPU's memory; 0 on a CPU.
        best: bytes of a checkpoint that predicts.
        last: bytes of a checkpoint from which a trial goes on.
    """

    train: dict[int, float]
    validate: float
    save: float
    memory: int
    gpu_memory: int
    gpu_size: int
    best: int
    last: int

    @classmethod
    def most(cls, costs: Sequence["TrialCost"]) -> Self:
        """Return the maximum of each number over processes that were measured at the same time."""
        figures = {
            name: max(getattr(cost, name) for cost in costs) for name in cls.__dataclass_fields__ if name != "train"
        }
        train = {side: max(cost.train[side] for cost in costs) for side in costs[0].train}
        return cls(train=train, **figures)

    def epoch_seconds(self, side: int, train: float, validation: float) -> float:
        """Return the seconds of an epoch, including its checkpoint. The cost of an image is linear in its area.

        Args:
            side: side of the images in pixels; below the smallest measured side, the cost of that side is used.
            train: number of training images of this process.
            validation: number of validation images of this process.
        """
        sides = sorted(self.train)
        image = np.interp(side**2, [known**2 for known in sides], [self.train[known] for known in sides])
        return float(image) * train + self.validate * validation + self.save

    def trial_seconds(self, config: Config, info: DatasetInfo, workers: int) -> float:
        """Return the seconds of all epochs of a trial."""
        rows = {split: sum(info.splits[split].labels.values()) / workers for split in ("train", "validation")}
        epochs, first = config.training.epochs, models.first_size(config)
        sides = [
            image_size(first, config.schedule.full_size_from, epoch / epochs, info.size) for epoch in range(epochs)
        ]
        return sum(self.epoch_seconds(side, rows["train"], rows["validation"]) for side in sides)


def measure_trial(config: Config, data: TrainingData, workers: int = 1) -> TrialCost:
    """Train some steps with ``fit``, validate a batch and write checkpoints.

    Memory is the peak of this process since its start, so call it in a new process.

    Args:
        data: all rows, in memory; some of them are used.
        workers: number of workers of a trial, which divide its batch and its rows. Their communication isn't measured.
    """
    device, size, first = pick_device(), data.info.size, models.first_size(config)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    batch = max(2, config.training.batch_size // workers)
    with tempfile.TemporaryDirectory() as folder:
        full = _measure(_two_epochs(config, batch, 1.0), data, Path(folder))
        train = {size: full.train}
        if first < 1:  # the second of two epochs has images halfway between the first size and the full size
            train[image_size(first, 1.0, 0.5, size)] = _measure(_two_epochs(config, batch, first), data, None).train
        best, last = (_bytes_in(Path(folder) / name) for name in ("best", "last"))
    rows = (len(data.train) + len(data.validation)) * data.info.row_bytes // workers
    return TrialCost(
        train=train,
        validate=full.validate,
        save=full.save,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT + rows,
        gpu_memory=torch.cuda.max_memory_reserved(device) + rows if on_gpu else 0,
        gpu_size=torch.cuda.get_device_properties(device).total_memory if on_gpu else 0,
        best=best,
        last=last,
    )


def _two_epochs(config: Config, batch: int, first_size: float) -> Config:
    """Return a configuration of two epochs: the first selects kernels and allocates memory, the second is measured."""
    training = {"epochs": 2, "batch_size": batch, "accumulate": min(config.training.accumulate, batch // 2)}
    schedule = {"first_size": first_size, "full_size_from": 1.0, "head_epochs": 0, "unfreeze_epochs": 0}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training | {"patience": None}),
            "schedule": config.schedule.model_copy(update=schedule),
            # A measured step must not diverge.
            "optimizer": config.optimizer.model_copy(update={"learning_rate": 1e-6}),
        }
    )


class _Seconds(NamedTuple):
    """Seconds of a training image, of a validation image, and of writing an epoch's checkpoints."""

    train: float
    validate: float
    save: float


def _measure(config: Config, data: TrainingData, folder: Path | None) -> _Seconds:
    """Measure one step, or as many as take ``_SECONDS``; write checkpoints to ``folder`` unless it is None."""
    one = _second_epoch(config, data, config.training.batch_size, folder)
    batch = config.training.batch_size
    steps = min(math.ceil(_SECONDS / (one.train * batch)), _MOST_STEPS, len(data.train) // batch)
    return _second_epoch(config, data, steps * batch, folder) if steps > 1 else one


def _second_epoch(config: Config, data: TrainingData, rows: int, folder: Path | None) -> _Seconds:
    sample = TrainingData(_some(data.train, rows), _some(data.validation, EVAL_BATCH), data.info)
    measured = list[_Seconds]()

    def note(metrics: Metrics, snapshot: Snapshot) -> None:
        began, train = time.monotonic(), len(sample.train) / metrics["images_per_s"]
        if folder:
            snapshot.save(folder / "best")
            snapshot.save(folder / "last", resumable=True)
        save = time.monotonic() - began
        validate = (metrics["seconds"] - train) / len(sample.validation)
        measured.append(_Seconds(train / len(sample.train), validate, save))

    fit(config, sample, note)
    return measured[-1]


def _some(split: Split, rows: int) -> Split:
    """Return rows spread over the whole split, so that every emotion is among them."""
    return split.take(np.linspace(0, len(split) - 1, min(rows, len(split))).astype(int))


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
