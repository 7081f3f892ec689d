"""The training loop: it learns, counts exactly, stops early and resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.errors import UsageError
from fer_ray.inference.calibration import fit_temperature
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.network import Network
from fer_ray.inference.predictor import Predictor
from fer_ray.inference.scores import score_predictions
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, RunFolder, Snapshot

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


def test_every_row_is_taken_once_an_epoch(data: TrainingData) -> None:
    batches, lines = list[int](), list[Metrics]()
    fit(config("training.epochs=1"), data, lambda metrics, snapshot: lines.append(metrics), batches.append)
    assert sum(batches) == len(data.train) and lines[0]["validation_rows"] == len(data.validation)
    assert max(batches) <= 64 and max(batches) - min(batches) <= 1


def test_the_seed_decides(data: TrainingData) -> None:
    first, again, other = (history_of(config(f"training.seed={seed}"), data) for seed in (1, 1, 2))
    assert [line["train_loss"] for line in first] == [line["train_loss"] for line in again]
    assert first[-1]["train_loss"] != other[-1]["train_loss"]


@pytest.mark.parametrize("average", [0.0, 0.95])
def test_the_checkpoint_predicts_what_validation_measured(average: float, data: TrainingData, tmp_path: Path) -> None:
    run, settings = RunFolder(tmp_path / "run"), config(f"training.ema={average}", "training.epochs=3")
    run.begin(settings)
    fit(settings, data, run.record)
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
    logits = Network(plain).logits(data.validation.images)[0].numpy()
    assert loaded.info.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_parts_of_a_batch_add_up_to_its_step(data: TrainingData) -> None:
    """Without dropout and batch norm, the batch in parts gives the same step but for rounding."""
    plain = ["model.dropout=0", "optimizer.name=sgd", "training.epochs=1"]
    whole, parts = (
        history_of(config(*plain, f"training.accumulate={count}"), data)[0]["train_loss"] for count in (1, 4)
    )
    assert whole == pytest.approx(parts, rel=1e-4)


def test_only_the_classifier_learns_at_first(data: TrainingData, tmp_path: Path) -> None:
    weights = []
    settings = config("training.epochs=3", "schedule.head_epochs=2")

    def keep(metrics: Metrics, snapshot: Snapshot) -> None:
        snapshot.save(tmp_path / "last")
        weights.append(load_checkpoint(tmp_path / "last").model.state_dict())

    fit(settings, data, keep)
    first, second, third = (
        [key for key in weights[0] if not torch.equal(a[key], b[key])]
        for a, b in ((weights[0], weights[1]), (weights[1], weights[2]), (weights[0], weights[2]))
    )
    classifier = list(weights[0])[-2:]
    assert first == classifier
    assert set(second) == set(third) == set(weights[0])


def test_a_student_learns_its_teacher_and_not_the_labels(data: TrainingData, tmp_path: Path) -> None:
    """With labels that say nothing, all that the student can know it has from its teacher."""
    quick = "optimizer.learning_rate=4e-3"
    fit(config("training.epochs=8", quick), data, lambda metrics, snapshot: snapshot.save(tmp_path / "teacher"))
    shuffled = replace(data.train, labels=np.random.default_rng(0).permutation(data.train.labels))
    noise = replace(data, train=shuffled)
    alone = history_of(config("training.epochs=3", quick), noise)[-1]["validation_accuracy"]
    teacher = [f"loss.teachers=[{tmp_path / 'teacher'}]", "loss.distill_weight=1"]
    taught = history_of(config("training.epochs=8", quick, *teacher), noise)[-1]["validation_accuracy"]
    assert alone < 0.35 < 0.5 < taught


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("loss.teachers=[{}]", r"loss\.teachers: .*nowhere"),
        ("model.pretrained={}", r"model\.pretrained = .*nowhere"),
    ],
)
def test_files_that_are_missing_end_it_before_the_first_step(
    option: str, problem: str, data: TrainingData, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=problem):
        history_of(config(option.format(tmp_path / "nowhere")), data)


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
    images = np.random.default_rng(0).integers(0, 256, (400, data.info.size, data.info.size), dtype=np.uint8)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    split = Split([str(i) for i in range(400)], images, labels, np.zeros(400, bool))
    settings = config(f"loss.class_weight_power={power}", "training.epochs=3")
    fit(settings, TrainingData(split, split, data.info), lambda metrics, snapshot: snapshot.save(tmp_path / "last"))
    probabilities = Network(tmp_path / "last").logits(images)[0].softmax(dim=1)  # as learnt: not calibrated
    assert low < probabilities[:, 1].mean() < high


def test_bfloat16_learns_too(data: TrainingData) -> None:
    history = history_of(config("training.precision=bfloat16", "training.epochs=1"), data)
    assert np.isfinite(history[0]["train_loss"])
