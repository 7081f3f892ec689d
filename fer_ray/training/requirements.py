"""Checks of a configuration against the dataset and files, before training starts."""

import os
import shutil

import torch

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.console.text import amount
from fer_ray.dataset.store import DatasetInfo
from fer_ray.errors import FerRayError, UsageError
from fer_ray.training.losses import load_teachers
from fer_ray.training.schedules import image_size

_LEAST_PART, _LEAST_GPU_PART = 32, 64  # images that a worker computes at once


def training_problems(config: Config, info: DatasetInfo | None, workers: int, read: bool = True) -> list[str]:
    """Return what prevents ``workers`` workers from training the configured network on a dataset.

    Without ``info``, where the dataset can't be read, only the rest is checked. ``read``: whether to read pretrained
    weights and teachers.
    """
    rows = sum(info.splits["train"].labels.values()) if info and "train" in info.splits else None
    problems = batch_problems(config, rows, workers)
    compiler = os.environ.get("CXX", "g++")
    if config.training.compile and not shutil.which(compiler):
        problems.append(
            f"training.compile = True: needs a C++ compiler, and {compiler} is not here. Install it, or leave it False."
        )
    try:
        models.first_size(config)
    except UsageError as error:
        return problems + error.problems
    if info is None:
        return problems
    try:
        _require_fitting_images(config, info.size)
        if read and config.model.pretrained is not None:
            models.initialize(models.build(config.model, info.size), config.model, info.mean, info.std)
    except FerRayError as error:
        problems += error.problems
    if config.loss.soft_labels and not info.soft_labels:
        problems.append(
            "loss.soft_labels = True: the dataset has no soft labels. Prepare it from fer2013.csv with --fer-plus"
            " fer2013new.csv --fer-plus-labels soft, or with --corrections audit.parquet, or leave loss.soft_labels"
            " False."
        )
    if read and config.loss.teachers:
        try:
            load_teachers(config.loss.teachers, info)
        except FerRayError as error:
            problems += error.problems
    return problems


def batch_problems(config: Config, rows: int | None, workers: int) -> list[str]:
    """Return a problem where a part of a worker's batch has fewer than the two images that batch norm needs.

    ``rows`` are the labelled rows of the training split, None where that isn't known.
    """
    batch, parts = config.training.batch_size, config.training.accumulate
    problems = list[str]()
    if rows is not None and rows < 2 * workers:
        problems.append(
            f"{amount(rows, 'training image')} for {amount(workers, 'worker')}: each worker needs 2 or more. Prepare"
            " more images, or use fewer workers."
        )
    if batch < 2 * parts * workers:
        problems.append(
            f"training.accumulate = {parts}: gives parts below 2 images, training.batch_size {batch} /"
            f" {amount(workers, 'worker')} / {parts} = {batch / workers / parts:.3g}. Lower"
            f" {'training.accumulate or ' * (parts > 1)}the number of workers, or raise training.batch_size to"
            f" {2 * parts * workers} or more."
        )
    return problems


def batch_note(config: Config, workers: int, on_gpu: bool) -> str | None:
    """Return a note where a worker's part of a batch is small for batch norm, or for a GPU."""
    part = config.training.batch_size / workers / config.training.accumulate
    if part < _LEAST_PART:
        why = f"batch norm's statistics are noisy below {_LEAST_PART}"
    elif on_gpu and part < _LEAST_GPU_PART:
        why = f"a GPU waits for the host below {_LEAST_GPU_PART}"
    else:
        return None
    return (
        f"A worker computes {part:g} images at once: {why}. Raise training.batch_size, and optimizer.learning_rate in"
        " proportion, or use fewer workers."
    )


def _require_fitting_images(config: Config, full_size: int) -> None:
    """Raise ``UsageError`` if ``build`` fails, or the network needs larger images than the smallest or full ones."""
    size = full_size
    smallest = image_size(models.first_size(config), config.schedule.full_size_from, 0.0, full_size)
    try:
        with torch.device("meta"), torch.no_grad():  # no memory and no time for weights
            network = models.build(config.model, full_size).eval()
            for size in (full_size, smallest):
                network(torch.empty(2, 1, size, size))
    except RuntimeError as error:
        first = ", set schedule.first_size to 1" if size < full_size else ""
        raise UsageError(
            f"model.name = '{config.model.name}': needs larger images than {size} × {size} pixels. Prepare the dataset"
            f" with a larger --size{first}, set model.input_size, or choose another architecture."
        ) from error
