"""What a configuration needs of the files and the dataset, checked before anything starts."""

import torch

from fer_ray import models
from fer_ray.config import Config
from fer_ray.data.store import DatasetInfo
from fer_ray.errors import FerRayError, UsageError
from fer_ray.learning.distillation import load_teachers


def require_trainable(config: Config, info: DatasetInfo) -> None:
    """Check that a network can be trained as configured on a dataset.

    Raises:
        UsageError: what ``requirement_problems`` finds.
    """
    if problems := requirement_problems(config, info):
        raise UsageError(problems)


def requirement_problems(config: Config, info: DatasetInfo | None) -> list[str]:
    """Say what is wrong: no such architecture, sizes or labels that don't go together, weights that can't be read.

    Args:
        config: what is to be trained.
        info: of the dataset; None where that is wrong itself, so that only the rest is checked.
    """
    problems = list[str]()
    try:
        models.first_size(config)
        if info is not None:
            with torch.device("meta"):  # without memory or time for weights
                models.build(config.model, info.size)
    except UsageError as error:
        problems += error.problems
    buildable = not problems
    if config.training.accumulate > config.training.batch_size // 2:
        problems.append(
            f"training.accumulate = {config.training.accumulate}: leaves parts below 2 images of the batch of"
            f" {config.training.batch_size}. Make it smaller, or the batch larger."
        )
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
