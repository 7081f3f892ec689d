"""Small steps on one thread: they are much slower where threads of a busy machine wait for each other."""

from collections.abc import Iterator

import pytest
import torch

from fer_ray.dataset.store import PreparedDataset
from fer_ray.training.rows import TrainingData


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_data(tiny_dataset: PreparedDataset) -> TrainingData:
    return TrainingData.load(tiny_dataset)
