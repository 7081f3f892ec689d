"""A run's folder after a kill at any moment, and on a disk that refuses."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from datasets_made import write_prepared

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.errors import FerRayError
from fer_ray.inference.checkpoint import load_checkpoint, read_info
from fer_ray.storage.output import open_output
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import BackgroundReport, Metrics, Report, RunFolder, Snapshot


def config(epochs: int) -> Config:
    return load_config(None, ["model.name=cnn3", "optimizer.name=adam", f"training.epochs={epochs}"])


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    labels = [row % 7 for row in range(70)]
    return TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels}))


class KilledError(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize("moment", range(1, 9))
def test_kill_between_renames(moment: int, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(config(2))
    renames, real = 0, Path.rename

    def rename(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == moment:
            raise KilledError
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", rename)
    with pytest.raises(KilledError):
        fit(config(2), data, run.record)
    monkeypatch.undo()
    run.catch_up()
    fit(config(2), data, run.record, resume_from=run.resumable())
    assert [line["epoch"] for line in run.history()] == [1, 2]
    best = max(run.history(), key=lambda line: line["validation_accuracy"])
    assert read_info(run.best).epoch == best["epoch"]
    assert load_checkpoint(run.last).info.epoch == 2


@pytest.mark.parametrize("file", ["model.safetensors", "training.pt", ".metrics.jsonl.partial"])
def test_a_full_disk_loses_none(file: str, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(config(3))
    real = Path.write_bytes

    def write_bytes(self: Path, content: bytes) -> int:
        if self.name == file and run.history():
            real(self, bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(FerRayError) as raised:
        fit(config(3), data, run.record)
    epoch = read_info(run.last).epoch
    assert f"can't be written: No space left on device. Intact: {run.last} (epoch {epoch})" in str(raised.value)
    assert load_checkpoint(run.best).info.epoch >= 1
    monkeypatch.undo()
    run.catch_up()
    fit(config(3), data, run.record, resume_from=run.resumable())
    assert [line["epoch"] for line in run.history()] == [1, 2, 3]


def test_a_full_disk_in_the_first_epoch(data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")

    def write_bytes(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(FerRayError, match=r"No space left.*nothing to resume.*start again"),
        open_output(run.output, is_resumable=lambda new: RunFolder(new).resumable()),
        run.writing(),
    ):
        run.begin(config(1))
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        fit(config(1), data, run.record)
    assert not run.path.exists()


def test_epochs_written_in_the_background_delay_none_and_keep_the_best_and_the_last(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, is_released = list[float](), threading.Event()

    def record(run: RunFolder, metrics: Metrics, snapshot: Snapshot) -> None:
        assert is_released.wait(30)
        real(run, metrics, snapshot)
        written.append(metrics["epoch"])

    def fit_to(report: Report) -> None:
        def scripted(metrics: Metrics, snapshot: Snapshot) -> None:
            metrics["validation_accuracy"] = [0.2, 0.3, 0.9, 0.4, 0.5, 0.6][snapshot.history.index(metrics)]
            report(metrics, snapshot)

        fit(config(6), data, scripted)

    run, plain = (RunFolder(tmp_path / name) for name in ("run", "plain"))
    fit_to(plain.record)
    real = RunFolder.record
    monkeypatch.setattr(RunFolder, "record", record)
    monkeypatch.setattr(BackgroundReport, "SECONDS", 0)
    run.begin(config(6))
    with BackgroundReport(run) as report:
        fit_to(report)
        assert not written  # six epochs were trained while the first one was being written
        is_released.set()
    assert written == [1, 3, 6] and [line["epoch"] for line in run.history()] == [1, 2, 3, 4, 5, 6]
    for folder, epoch in (("best", 3), ("last", 6)):
        ours, expected = (load_checkpoint(getattr(each, folder)) for each in (run, plain))
        assert ours.info.epoch == expected.info.epoch == epoch and ours.info.temperature == expected.info.temperature
        torch.testing.assert_close(ours.model.state_dict(), expected.model.state_dict(), rtol=0, atol=0)


def test_a_background_error_ends_training(data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = list[float]()

    def record(run: RunFolder, metrics: Metrics, snapshot: Snapshot) -> None:
        raise FerRayError("no space")

    monkeypatch.setattr(RunFolder, "record", record)
    monkeypatch.setattr(BackgroundReport, "SECONDS", 0)
    with pytest.raises(FerRayError, match="no space"), BackgroundReport(RunFolder(tmp_path / "run")) as background:

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            epochs.append(metrics["epoch"])
            background(metrics, snapshot)
            time.sleep(0.05)

        fit(config(50), data, report)
    assert len(epochs) < 50
