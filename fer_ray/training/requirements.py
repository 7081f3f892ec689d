"""Checks of a configuration against the dataset and files, before training starts."""

import torch

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.console.text import amount
from fer_ray.dataset.store import DatasetInfo
from fer_ray.errors import FerRayError, UsageError
from fer_ray.training.distillation import load_teachers


def require_trainable(config: Config, info: DatasetInfo, rows: int, workers: int, resumes: bool) -> None:
    """Check that workers can train the configured network on a dataset.

    Args:
        config: the training configuration.
        info: the dataset.
        rows: rows of the training split.
        workers: number of workers.
        resumes: whether a run resumes. Then pretrained weights and teachers aren't checked.

    Raises:
        UsageError: the problems that ``batch_problems`` and ``requirement_problems`` return.
    """
    problems = batch_problems(config, rows, workers) + ([] if resumes else requirement_problems(config, info))
    if problems:
        raise UsageError(problems)


def batch_problems(config: Config, rows: int | None, workers: int) -> list[str]:
    """Return a problem where a worker would get fewer than the two images that batch norm needs to train.

    Args:
        config: the training configuration.
        rows: rows of the training split; None where that isn't known.
        workers: number of workers. Each computes its share of a batch in ``training.accumulate`` parts.
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


def requirement_problems(config: Config, info: DatasetInfo | None) -> list[str]:
    """Return what is wrong with the architecture, image sizes, soft labels, pretrained weights and teachers.

    Args:
        config: the training configuration.
        info: the dataset; None where it can't be read. Then only the architecture is checked.
    """
    problems = list[str]()
    try:
        models.first_size(config)
        if info is not None:
            with torch.device("meta"):  # no memory and no time for weights
                models.build(config.model, info.size)
    except UsageError as error:
        problems += error.problems
    buildable = not problems
    if info is None:
        return problems
    if config.model.pretrained is not None and buildable:
        try:
            models.initialize(models.build(config.model, info.size), config.model, info.mean, info.std)
        except FerRayError as error:
            problems += error.problems
    if config.loss.soft_labels and not info.soft_labels:
        problems.append(
            "loss.soft_labels = True: the dataset has no soft labels. Prepare it from fer2013.csv with --fer-plus"
            " fer2013new.csv --fer-plus-labels soft, or leave loss.soft_labels False."
        )
    if config.loss.teachers:
        try:
            load_teachers(config.loss.teachers, info)
        except FerRayError as error:
            problems += [f"loss.teachers: {problem}" for problem in error.problems]
    return problems
