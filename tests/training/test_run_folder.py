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
from fer_ray.training.run_folder import BackgroundReport, Metrics, RunFolder, Snapshot, has_epoch


def config(epochs: int) -> Config:
    return load_config(None, ["model.name=cnn3", "optimizer.name=adam", f"training.epochs={epochs}"])


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    labels = [row % 7 for row in range(70)]
    return TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels}))


class KilledError(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_kill_between_any_two_renames_loses_no_epoch(
    moment: int, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_full_disk_stops_with_what_is_whole(
    file: str, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        open_output(run.output, is_resumable=has_epoch),
        run.writing(),
    ):
        run.begin(config(1))
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        fit(config(1), data, run.record)
    assert not run.path.exists()


def test_a_report_in_the_background_delays_no_epoch_and_ends_with_the_last_one(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reported, is_released = RunFolder(tmp_path / "run"), list[float](), threading.Event()
    run.begin(config(6))

    def record(metrics: Metrics, snapshot: Snapshot) -> None:
        assert is_released.wait(30)
        run.record(metrics, snapshot)
        reported.append(metrics["epoch"])

    monkeypatch.setattr(BackgroundReport, "SECONDS", 0)
    with BackgroundReport(record) as report:
        fit(config(6), data, report)
        assert not reported  # six epochs were trained while the first one was being written
        is_released.set()
    assert reported == [1, 6]
    fit(config(6), data, (plain := RunFolder(tmp_path / "plain")).record)
    for folder in ("best", "last"):
        written, expected = (load_checkpoint(getattr(each, folder)) for each in (run, plain))
        assert written.info.epoch == expected.info.epoch and written.info.temperature == expected.info.temperature
        torch.testing.assert_close(written.model.state_dict(), expected.model.state_dict(), rtol=0, atol=0)
    assert [line["epoch"] for line in run.history()] == [1, 2, 3, 4, 5, 6]


def test_an_error_in_the_background_ends_training(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = list[float]()

    def record(metrics: Metrics, snapshot: Snapshot) -> None:
        raise FerRayError("no space")

    monkeypatch.setattr(BackgroundReport, "SECONDS", 0)
    with pytest.raises(FerRayError, match="no space"), BackgroundReport(record) as background:

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            epochs.append(metrics["epoch"])
            background(metrics, snapshot)
            time.sleep(0.05)

        fit(config(50), data, report)
    assert len(epochs) < 50
