"""Test-time augmentation: the views of an image over which probabilities are averaged."""

from collections.abc import Callable, Iterator

import torch


def _none(images_bchw: torch.Tensor) -> Iterator[torch.Tensor]:
    yield images_bchw


def _flip(images_bchw: torch.Tensor) -> Iterator[torch.Tensor]:
    yield images_bchw
    yield images_bchw.flip(3)


VIEWS: dict[str, Callable[[torch.Tensor], Iterator[torch.Tensor]]] = {"none": _none, "flip": _flip}
"""By name: a function that yields one batch a view, B × C × H × W each, the unchanged images first."""

VIEW_COUNTS = {"none": 1, "flip": 2}
"""Views of each image by name."""
