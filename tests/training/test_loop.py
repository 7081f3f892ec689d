"""The training loop: it learns, counts exactly, calibrates, distils and weighs classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import Split
from fer_ray.inference.calibration import fit_temperature
from fer_ray.inference.checkpoint import Checkpoint, load_checkpoint
from fer_ray.inference.network import Network
from fer_ray.inference.predictor import Predictor
from fer_ray.inference.scores import score_predictions
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, RunFolder


def config(*overrides: str) -> Config:
    small = ["model.name=cnn3", "model.dropout=0.1", "optimizer.name=adam", "optimizer.learning_rate=4e-3"]
    return load_config(None, [*small, "training.batch_size=64", "training.epochs=1", *overrides])


def history_of(config: Config, data: TrainingData) -> list[Metrics]:
    history: list[Metrics] = []
    fit(config, data, lambda metrics, snapshot: history.append(metrics))
    return history


@pytest.fixture(scope="module")
def run(tiny_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("loop") / "run")
    settings = config("training.epochs=6", "loss.label_smoothing=0.2", "training.ema=0.9")
    run.begin(settings)
    fit(settings, tiny_data, run.record)
    return run


def test_it_learns(run: RunFolder) -> None:
    history = run.history()
    assert [line["epoch"] for line in history] == list(range(1, 7))
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert history[-1]["validation_accuracy"] > 0.5


def test_a_checkpoint_is_what_validation_measured_and_calibrated(run: RunFolder, tiny_data: TrainingData) -> None:
    best = max(run.history(), key=lambda line: line["validation_accuracy"])
    loaded, images, labels = load_checkpoint(run.best), tiny_data.validation.images, tiny_data.validation.labels
    plain = Checkpoint(loaded.model, loaded.info.model_copy(update={"temperature": 1.0}))
    before, after = (Predictor(one).predict(images) for one in (plain, loaded))
    assert loaded.info.epoch == best["epoch"] and (before.labels == after.labels).all()
    assert (after.labels == labels).mean() == pytest.approx(best["validation_accuracy"], abs=1e-9)
    scores = [score_predictions(labels, predictions.probabilities) for predictions in (before, after)]
    assert loaded.info.temperature < 0.9  # smoothing: too modest
    assert scores[1].nll < scores[0].nll and scores[1].ece < scores[0].ece
    logits = Network(plain).logits(images)[0].numpy()
    assert loaded.info.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_a_student_learns_its_teacher_and_not_the_labels(run: RunFolder, tiny_data: TrainingData) -> None:
    """With labels that say nothing, all that the student can know it has from its teacher."""
    shuffled = replace(tiny_data.train, labels=np.random.default_rng(0).permutation(tiny_data.train.labels))
    noise, teacher = replace(tiny_data, train=shuffled), [f"loss.teachers=[{run.best}]", "loss.distill_weight=1"]
    alone = history_of(config("training.epochs=3"), noise)[-1]["validation_accuracy"]
    taught = history_of(config("training.epochs=6", *teacher), noise)[-1]["validation_accuracy"]
    assert alone < 0.35 < 0.5 < taught


def test_every_row_is_taken_once_an_epoch_and_the_seed_decides(tiny_data: TrainingData) -> None:
    batches, lines = list[int](), list[Metrics]()
    for seed in (1, 1, 2):
        settings = config(f"training.seed={seed}", "model.name=lenet")
        fit(settings, tiny_data, lambda metrics, snapshot: lines.append(metrics), batches.append)
    assert sum(batches) == 3 * len(tiny_data.train) and max(batches) <= 64
    losses = [line["train_loss"] for line in lines]
    assert losses[0] == losses[1] != losses[2]


def test_parts_of_a_batch_add_up_to_its_step(tiny_data: TrainingData) -> None:
    """Without dropout and batch norm, the batch in parts gives the same step but for rounding."""
    plain = ["model.dropout=0", "optimizer.name=sgd"]
    whole, parts = (
        history_of(config(*plain, f"training.accumulate={count}"), tiny_data)[0]["train_loss"] for count in (1, 4)
    )
    assert whole == pytest.approx(parts, rel=1e-4)


def test_a_compiled_network_trains_alike(tiny_data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that compiles to PyTorch's own operators: others need a compiler and round otherwise."""
    real, compiled = torch.nn.Module.compile, list[torch.nn.Module]()

    def compile(self: torch.nn.Module, **options: object) -> None:
        compiled.append(self)
        real(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    settings = ["model.name=lenet", "training.precision=float32", "training.ema=0.9"]
    plain, same = (
        history_of(config(*settings, f"training.compile={value}"), tiny_data)[-1] for value in ("false", "true")
    )
    assert len(compiled) == 1
    assert same["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-4)
    assert same["validation_loss"] == pytest.approx(plain["validation_loss"], rel=1e-3)


@pytest.mark.parametrize(("power", "low", "high"), [(0, 0.0, 0.3), (1, 0.3, 0.7)])
def test_weights_level_classes(power: float, low: float, high: float, tiny_data: TrainingData, tmp_path: Path) -> None:
    """On noise with labels of 9 to 1, a network can learn only how common a class is; weights level that."""
    size = tiny_data.info.size
    images = np.random.default_rng(0).integers(0, 256, (400, size, size), dtype=np.uint8)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    split = Split([str(i) for i in range(400)], images, labels, np.zeros(400, bool))
    settings = config(f"loss.class_weight_power={power}", "training.epochs=3", "optimizer.learning_rate=2e-3")
    fit(settings, TrainingData(split, split, tiny_data.info), lambda line, snapshot: snapshot.save(tmp_path / "last"))
    probabilities = Network(tmp_path / "last").logits(images)[0].softmax(dim=1)  # as learnt: not calibrated
    assert low < torch.mean(probabilities[:, 1]) < high
