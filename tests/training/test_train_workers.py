"""Training on several workers: no row left out, a killed worker, errors that are not tried again."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from datasets_made import numbers_in, write_prepared
from process_tree import descendants
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import PreparedDataset, Split
from fer_ray.errors import FerRayError, UsageError
from fer_ray.inference.checkpoint import load_checkpoint
from fer_ray.train import TrainResult, train
from fer_ray.training.on_ray import shards, train_workers
from fer_ray.training.run_folder import RunFolder


def config(*overrides: str) -> Config:
    quick = ["model.name=cnn3", "optimizer.name=adam", "optimizer.learning_rate=2e-3", "model.dropout=0.1"]
    return load_config(None, [*quick, "training.batch_size=64", "training.epochs=2", *overrides])


def test_shards_leave_no_row_out(tmp_path: Path, ray_cluster: None) -> None:
    """1,000 labelled rows of 1,100 for three workers: 334, 333 and 333."""
    labels = [None if number % 11 == 5 else number % 7 for number in range(1100)]
    dataset = write_prepared(tmp_path / "data", {"train": labels}, soft=True)
    rows = dataset.labelled("train")
    assert rows % 3 == 1
    parts = shards.train_dataset(dataset, 3).streaming_split(3, equal=True)
    splits = dict[int, Split]()

    def drain(rank: int) -> None:
        splits[rank] = shards.drain(parts[rank], dataset, rank, 3)

    threads = [threading.Thread(target=drain, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [numbers_in(splits[rank].images) for rank in range(3)]
    assert all((split.soft_labels.argmax(1) == split.labels).all() for split in splits.values())
    assert [len(own) for own in numbers] == [334, 333, 333]
    labelled = [number for number, label in enumerate(labels) if label is not None]
    assert sorted(number for own in numbers for number in own) == labelled


def test_two_workers_map_rows_that_do_not_fit_in_memory_and_start_again_when_one_is_killed(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_workers, "_memory_of_worker", lambda workers, resources: 650_000)
    labels = [label for label in range(7) for _ in range(571)]
    dataset = write_prepared(tmp_path / "data", {"train": labels, "validation": labels[::30]})
    result = train_and_kill(dataset, tmp_path / "run", config("training.epochs=8"), kills=1)
    assert isinstance(result, TrainResult)
    assert [line["epoch"] for line in RunFolder(tmp_path / "run").history()] == list(range(1, 9))
    assert {line["validation_rows"] for line in result.history} == {134}
    profile = RunFolder(tmp_path / "run").profile()
    assert profile is not None and profile.mapped and profile.workers == 2
    said = capfd.readouterr().err
    assert "train 1,999 rows × 192 bytes = 374.8 KiB, memory-mapped from disk" in said
    assert "its process or node was lost. Restarting after epoch" in said
    assert "failure 1 of 2 allowed (training.max_failures)" in said


def test_more_failures_than_allowed_end_with_the_last_checkpoint_whole(
    tiny_dataset: PreparedDataset, tmp_path: Path, ray_cluster: None
) -> None:
    result = train_and_kill(
        tiny_dataset, tmp_path / "run", config("training.max_failures=0", "training.epochs=50"), kills=1
    )
    assert isinstance(result, FerRayError)
    assert "lost: one failure more than training.max_failures = 0 allows" in str(result)
    assert f"Intact: {tmp_path / 'run' / 'last'} (epoch " in str(result) and "continue with --resume" in str(result)
    run = RunFolder(tmp_path / "run")
    assert load_checkpoint(run.last).info.epoch == len(run.history()) < 50


def test_the_loss_of_what_ray_train_starts_beside_the_driver_is_said_in_words(
    tiny_dataset: PreparedDataset, tmp_path: Path, ray_cluster: None
) -> None:
    long = config("training.epochs=50")
    result = train_and_kill(tiny_dataset, tmp_path / "run", long, kills=1, victim="ray::TrainController")
    assert isinstance(result, FerRayError)
    assert "controller was lost, ActorDiedError" in str(result) and "continue with --resume" in str(result)
    # Ray frees the CPUs of such a run with the help of its dashboard, which runs where fer_ray starts Ray but not here.
    for id, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(id)))


def train_and_kill(
    dataset: PreparedDataset,
    output: Path,
    config: Config,
    kills: int,
    victim: str = "ray::RayTrainWorker",
    **options: int,
) -> TrainResult | Exception:
    """Train on two workers, one of which, or another process of Ray's, is killed after each of the first epochs."""
    ended = list[TrainResult | Exception]()

    def run() -> None:
        try:
            ended.append(train(dataset.path, config, output, workers=2, **options))
        except Exception as error:
            ended.append(error)

    metrics, killed = output / "metrics.jsonl", set[int]()
    others = processes_named(victim)  # of previous runs, about to end
    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
        if len(killed) < kills and metrics.is_file() and len(metrics.read_text().splitlines()) > len(killed):
            victims = processes_named(victim) - killed - others
            if victims:
                os.kill(min(victims), signal.SIGKILL)
                killed.add(min(victims))
    assert len(killed) == kills
    return ended[0]


def processes_named(name: str) -> set[int]:
    """The ids of the processes whose command line begins so, of those that this one has started."""
    started = descendants(os.getpid())
    return {process.pid for process, command in started.items() if command.startswith(name)}


def test_a_diverged_run_is_not_tried_again(
    tiny_dataset: PreparedDataset, tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"training loss is nan.*Lower optimizer\.learning_rate"):
        train(
            tiny_dataset.path,
            config("optimizer.name=sgd", "optimizer.learning_rate=10", "schedule.name=constant"),
            tmp_path / "run",
            workers=2,
        )
    assert "Restarting" not in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
