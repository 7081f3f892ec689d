"""One Ray cluster and one small prepared dataset for all tests."""

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from postgres import new_database, running_server

from fer_ray.cluster.connect import start_ray
from fer_ray.dataset.store import PreparedDataset
from fer_ray.prepare import prepare

REPOSITORY = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Hide this machine's GPUs from all tests, and from what they start, unless those of GPUs are asked for."""
    if not re.search(r"(?<!not )\bgpu\b", config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start Ray with two CPUs once for all tests; ``connect`` then uses it."""
    often = {"metrics_report_interval_ms": 1000}  # not the 10 s that Ray takes
    start_ray(num_cpus=2, num_gpus=0, include_dashboard=False, _system_config=often)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def fer2013_zip() -> Path:
    """Return the real FER-2013 images."""
    path = REPOSITORY.parent / "shared" / "data" / "fer2013-images.zip"
    if not path.is_file():
        pytest.skip(f"FER-2013 is not here ({path})")
    return path


@pytest.fixture(scope="session")
def tiny_dataset(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Return 712 drawn faces of 24 × 24 pixels, prepared: 570 for training, an odd 71 each for validation and test."""
    path = tmp_path_factory.mktemp("tiny") / "dataset"
    prepare("synthetic:712", path, size=24)
    return PreparedDataset(path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the URL of a PostgreSQL server of our own, without the name of a database."""
    with running_server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a fresh database of each kind that a search supports."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return new_database(request.getfixturevalue("postgres"), f"study_{uuid.uuid4().hex}")
