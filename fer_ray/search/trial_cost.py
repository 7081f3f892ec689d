"""Measure the cost of a trial by a few training steps: time and memory."""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from fer_ray import models
from fer_ray.config.paths import with_values
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
    """Cost of one process of a trial."""

    train: float  # seconds per training image of full size
    validate: float  # seconds per validation image
    save: float  # seconds to write the checkpoints of an epoch
    memory: int  # peak bytes of the process, with its rows
    gpu: float = 0  # fraction of a GPU's memory that PyTorch reserved, with the rows

    @classmethod
    def most(cls, costs: Iterable["TrialCost"]) -> Self:
        """Return the maximum of each number over several processes."""
        return cls(*(max(figures) for figures in zip(*map(astuple, costs), strict=True)))

    def trial_seconds(self, config: Config, epochs: int, info: DatasetInfo, workers: int) -> float:
        """Return the seconds of a trial of so many epochs. The cost of a training image is proportional to its area."""
        first, full_from = models.first_size(config), config.schedule.full_size_from
        areas = [image_size(first, full_from, epoch / epochs, info.size) ** 2 for epoch in range(epochs)]
        rows = {split: sum(info.splits[split].labels.values()) / workers for split in ("train", "validation")}
        images = rows["train"] * sum(areas) / info.size**2
        return self.train * images + (self.validate * rows["validation"] + self.save) * epochs


def measure_trial(config: Config, data: TrainingData, workers: int = 1) -> TrialCost:
    """Train some steps with ``fit`` on some of the rows, which are in memory, validate a batch and write checkpoints.

    Memory is the peak of this process since its start, so call it in a new process. The ``workers`` of a trial divide
    its batch and its rows. Their communication isn't measured.
    """
    device = pick_device()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    batch = max(2, config.training.batch_size // workers)
    # The first epoch selects kernels and allocates memory, the second is measured. A measured step must not diverge.
    values: dict[str, Any] = {"training.epochs": 2, "training.batch_size": batch, "training.patience": None}
    values |= {"training.accumulate": min(config.training.accumulate, batch // 2), "optimizer.learning_rate": 1e-6}
    values |= {"schedule.first_size": 1.0, "schedule.head_epochs": 0, "schedule.unfreeze_epochs": 0}
    quick = with_values(config, values)
    with tempfile.TemporaryDirectory() as folder:
        seconds = _second_epoch(quick, data, batch, Path(folder))
        steps = min(math.ceil(_SECONDS / (seconds[0] * batch)), _MOST_STEPS, len(data.train) // batch)
        if steps > 1:
            seconds = _second_epoch(quick, data, steps * batch, Path(folder))
    rows = (len(data.train) + len(data.validation)) * data.info.row_bytes // workers
    return TrialCost(
        *seconds,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT + rows,
        gpu=(torch.cuda.max_memory_reserved(device) + rows) / torch.cuda.mem_get_info(device)[1] if on_gpu else 0,
    )


def _second_epoch(config: Config, data: TrainingData, rows: int, folder: Path) -> tuple[float, float, float]:
    """Return the seconds of a training image, of a validation image, and of writing an epoch's checkpoints."""
    sample = TrainingData(_some(data.train, rows), _some(data.validation, EVAL_BATCH), data.info)
    measured = list[tuple[float, float, float]]()

    def note(metrics: Metrics, snapshot: Snapshot) -> None:
        began, train = time.monotonic(), len(sample.train) / metrics["images_per_s"]
        snapshot.save(folder / "best")
        snapshot.save(folder / "last", resumable=True)
        validate = (metrics["seconds"] - train) / len(sample.validation)
        measured.append((train / len(sample.train), validate, time.monotonic() - began))

    fit(config, sample, note)
    return measured[-1]


def _some(split: Split, rows: int) -> Split:
    """Return rows spread over the whole split, so that every emotion is among them."""
    return split.take(np.linspace(0, len(split) - 1, min(rows, len(split))).astype(int))
