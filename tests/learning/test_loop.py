"""The training loop: it learns, counts exactly, stops early and resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_ray.config import Config, load_config
from fer_ray.data.store import PreparedDataset, Split
from fer_ray.errors import UsageError
from fer_ray.learning.calibration import fit_temperature
from fer_ray.learning.checkpoint import Checkpoint, load_checkpoint
from fer_ray.learning.evaluation import score_predictions
from fer_ray.learning.loop import Metrics, Snapshot, fit
from fer_ray.learning.predictor import Predictor
from fer_ray.learning.rows import TrainingData
from fer_ray.learning.run_folder import RunFolder

SMALL = ["model.name=cnn3", "model.dropout=0.1", "optimizer.name=adam", "optimizer.learning_rate=2e-3"]


@pytest.fixture(scope="module")
def data(tiny_dataset: PreparedDataset) -> TrainingData:
    dataset = tiny_dataset
    return TrainingData.load(dataset)


def config(*overrides: str) -> Config:
    return load_config(None, [*SMALL, "training.batch_size=64", "training.epochs=2", *overrides])


def history_of(config: Config, data: TrainingData) -> list[Metrics]:
    history: list[Metrics] = []
    fit(config, data, lambda metrics, snapshot: history.append(metrics))
    return history


def test_it_learns(data: TrainingData) -> None:
    history = history_of(config("training.epochs=8"), data)
    assert [line["epoch"] for line in history] == list(range(1, 9))
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert history[-1]["validation_accuracy"] > 0.5


def test_every_validation_row_counts_once(data: TrainingData) -> None:
    (line,) = history_of(config("training.epochs=1"), data)
    assert line["validation_rows"] == len(data.validation)


def test_every_training_row_is_taken_once_an_epoch(data: TrainingData) -> None:
    batches: list[int] = []
    fit(config("training.epochs=1"), data, lambda metrics, snapshot: None, batches.append)
    assert sum(batches) == len(data.train)
    assert max(batches) <= 64 and max(batches) - min(batches) <= 1


def test_the_seed_decides(data: TrainingData) -> None:
    first, again, other = (history_of(config(f"training.seed={seed}"), data) for seed in (1, 1, 2))
    assert [line["train_loss"] for line in first] == [line["train_loss"] for line in again]
    assert first[-1]["train_loss"] != other[-1]["train_loss"]


def test_the_checkpoint_predicts_what_validation_measured(data: TrainingData, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(config())
    fit(config(), data, run.record)
    best = max(run.history(), key=lambda line: line["validation_accuracy"])
    predictions = Predictor(run.best).predict(data.validation.images)
    assert (predictions.labels == data.validation.labels).mean() == pytest.approx(best["validation_accuracy"], abs=1e-9)
    assert load_checkpoint(run.best).info.epoch == best["epoch"]


def test_the_checkpoint_is_calibrated_on_validation(data: TrainingData, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    fit(config("training.epochs=5", "loss.label_smoothing=0.2"), data, run.record)
    loaded, labels = load_checkpoint(run.best), data.validation.labels
    plain = Checkpoint(loaded.model, loaded.info.model_copy(update={"temperature": 1.0}))
    before, after = (Predictor(one).predict(data.validation.images) for one in (plain, loaded))
    scores = [score_predictions(labels, predictions.probabilities) for predictions in (before, after)]
    assert loaded.info.temperature == run.history()[loaded.info.epoch - 1]["temperature"] < 0.9  # smoothing: too modest
    assert (before.labels == after.labels).all()
    assert scores[1].nll < scores[0].nll and scores[1].ece < scores[0].ece
    logits = Predictor(plain).logits(data.validation.images)[0].numpy()
    assert loaded.info.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_resumed_run_equals_an_uninterrupted_one(data: TrainingData, tmp_path: Path) -> None:
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    for run in (whole, halves):
        run.begin(config("training.epochs=3"))
    fit(config("training.epochs=3"), data, whole.record)

    class KilledError(Exception):
        pass

    def record_then_die(metrics: Metrics, snapshot: Snapshot) -> None:
        halves.record(metrics, snapshot)
        raise KilledError

    with pytest.raises(KilledError):
        fit(config("training.epochs=3"), data, record_then_die)
    fit(config("training.epochs=3"), data, halves.record, resume_from=halves.resumable())
    expected, got = (load_checkpoint(run.last).model.state_dict() for run in (whole, halves))
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert [line["epoch"] for line in halves.history()] == [1, 2, 3]


def test_early_stopping_waits_for_its_patience(data: TrainingData) -> None:
    # At this learning rate nothing is learnt, so the first epoch stays the best.
    history = history_of(config("training.epochs=20", "training.patience=2", "optimizer.learning_rate=1e-12"), data)
    assert len(history) == 3


def test_a_diverged_run_stops_with_the_remedy(data: TrainingData) -> None:
    wild = config(
        "optimizer.name=sgd", "optimizer.learning_rate=10", "schedule.name=constant", "optimizer.momentum=0.99"
    )
    with pytest.raises(UsageError, match=r"diverged.*Lower optimizer\.learning_rate"):
        history_of(wild, data)


@pytest.mark.parametrize(("power", "low", "high"), [(0, 0.0, 0.3), (1, 0.3, 0.7)])
def test_class_weights_level_the_classes(
    power: float, low: float, high: float, data: TrainingData, tmp_path: Path
) -> None:
    """On noise with labels of 9 to 1, a network can learn only how common a class is; weights level that."""
    images = np.random.default_rng(0).integers(0, 256, (400, 48, 48), dtype=np.uint8)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    split = Split([str(i) for i in range(400)], images, labels, np.zeros(400, bool))
    settings = config(f"loss.class_weight_power={power}", "training.epochs=3")
    fit(settings, TrainingData(split, split, data.info), lambda metrics, snapshot: snapshot.save(tmp_path / "last"))
    probabilities = Predictor(tmp_path / "last").logits(images)[0].softmax(dim=1)  # as learnt: not calibrated
    assert low < probabilities[:, 1].mean() < high


def test_bfloat16_learns_too(data: TrainingData) -> None:
    history = history_of(config("training.precision=bfloat16", "training.epochs=1"), data)
    assert np.isfinite(history[0]["train_loss"])
