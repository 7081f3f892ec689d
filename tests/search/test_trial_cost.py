"""What a step of a trial costs, measured."""

from pathlib import Path

import pytest
from datasets_made import write_prepared

from fer_ray.config.files import load_config
from fer_ray.search import trial_cost
from fer_ray.search.trial_cost import epoch_areas, measure_trial
from fer_ray.training.rows import TrainingData


@pytest.fixture
def rows(tmp_path: Path) -> TrainingData:
    labels = [number % 7 for number in range(300)]
    return TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels[:40]}))


def test_a_step_is_measured(rows: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_cost, "_SECONDS", 0.05)
    config = load_config(None, ["model.name=cnn3", "optimizer.learning_rate=10"])  # at which a run would diverge
    cost = measure_trial(config, rows)
    assert 0 < cost.validate < 1 and 0 < cost.train < 1
    assert cost.memory > 100 << 20 and cost.gpu_memory == cost.gpu_size == 0


def test_epochs_of_smaller_images_cost_less() -> None:
    """Four epochs of 32 pixels, three of 40, three of 48."""
    config = load_config(None, ["training.epochs=10"])
    assert epoch_areas(config, 48) == [32**2] * 4 + [40**2] * 3 + [48**2] * 3
