"""One epoch of each architecture's recipe on 2,000 real images: what random numbers don't tell.

By default the networks that take some seconds on two CPU cores; ``pytest -m heavy -s tests/models`` trains the others,
in 20 s to 10 minutes each, and prints their figures.
"""

import math
import zipfile
from pathlib import Path

import pytest
from datasets_made import read_split

from fer_ray.config.files import load_config
from fer_ray.dataset.store import DatasetInfo
from fer_ray.emotions import EMOTIONS
from fer_ray.models import architectures
from fer_ray.training.loop import TrainingData, fit
from fer_ray.training.run_folder import Metrics, Snapshot

SPACES = Path(__file__).parents[2] / "search_spaces"
LIGHT = {"cnn3", "fast", "lenet"}


@pytest.fixture(scope="module")
def faces(fer2013_zip: Path) -> TrainingData:
    with zipfile.ZipFile(fer2013_zip) as archive:
        train, validation = read_split(archive, "Training", 2000), read_split(archive, "PublicTest", 500)
    info = DatasetInfo(
        fer_ray_version="",
        source=str(fer2013_zip),
        source_format="zip",
        size=48,
        splits={},
        mean=float(train.images.mean() / 255),
        std=float(train.images.std() / 255),
        fingerprint="",
    )
    return TrainingData(train, validation, info)


@pytest.mark.parametrize(
    "name", [pytest.param(a.name, marks=[] if a.name in LIGHT else pytest.mark.heavy) for a in architectures()]
)
def test_an_epoch_teaches_it_something(name: str, faces: TrainingData) -> None:
    # Rates of 0.1 are for thousands of steps; of 125 they'd leave none to settle in.
    rate = min(0.01, load_config(SPACES / f"{name}.yaml").optimizer.learning_rate)
    changes = ["training.epochs=1", "training.batch_size=16", f"optimizer.learning_rate={rate}"]
    config = load_config(SPACES / f"{name}.yaml", changes)
    lines: list[Metrics] = []

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        lines.append(metrics)

    fit(config, faces, report)
    (line,) = lines
    accuracy, loss, seconds = (line[key] for key in ("validation_accuracy", "validation_loss", "seconds"))
    print(f"\n{name}: validation accuracy {accuracy:.1%}, loss {loss:.3f} after {seconds:.0f} s")
    by_chance = 1 / len(EMOTIONS)
    spread = math.sqrt(by_chance * (1 - by_chance) / len(faces.validation))
    assert accuracy > by_chance + 3 * spread
