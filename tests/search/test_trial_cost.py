"""What a step of a trial costs, measured."""

from pathlib import Path

import pytest
from datasets_made import write_prepared

from fer_ray.config.files import load_config
from fer_ray.search import trial_cost
from fer_ray.search.trial_cost import measure_trial
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Snapshot


@pytest.fixture
def rows(tmp_path: Path) -> TrainingData:
    labels = [number % 7 for number in range(300)]
    return TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels[:40]}))


def test_a_step_is_measured(rows: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_cost, "_SECONDS", 0.05)
    config = load_config(None, ["model.name=cnn3", "optimizer.learning_rate=10"])  # at which a run would diverge
    cost = measure_trial(config, rows)
    assert list(cost.train) == [8] and 0 < cost.validate < 1 and 0 < cost.train[8] < 1
    saved = list[Snapshot]()
    one_epoch = load_config(None, ["model.name=cnn3", "training.epochs=1"])
    fit(one_epoch, rows, lambda metrics, snapshot: saved.append(snapshot))
    saved[0].save(tmp_path / "last", resumable=True)
    size = sum(file.stat().st_size for file in (tmp_path / "last").iterdir())
    assert cost.last == pytest.approx(size, rel=0.02) and cost.best < 0.7 * cost.last
    assert cost.memory > 100 << 20 and cost.gpu_memory == cost.gpu_size == 0


def test_smaller_images_are_measured_too(rows: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 16 pixels of 24, so that the second of two epochs is between them."""
    monkeypatch.setattr(trial_cost, "_SECONDS", 0.0)
    config = load_config(None, ["model.name=fast", "schedule.first_size=0.3", "training.batch_size=32"])
    assert sorted(measure_trial(config, rows, workers=2).train) == [8]
