"""Runs with new seeds: which configurations get them, what a kill leaves, and what they add up to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets_made import write_prepared

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import read_info
from fer_ray.search.confirmation import (
    Confirmed,
    SeedRun,
    best_configurations,
    read_confirmation,
    resolution,
    seed_runs,
    with_seed,
    write_confirmation,
)
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.study import TrialRecord
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics

ACCURACY, MACRO_F1 = OBJECTIVES["accuracy"], OBJECTIVES["macro_f1"]


def config(*overrides: str) -> Config:
    return load_config(
        None, ["model.name=cnn3", "optimizer.name=adam", "training.epochs=3", "training.seed=5", *overrides]
    )


def trial(number: int, value: float, config: Config, state: str = "COMPLETE") -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        values=(value,),
        accuracy=value,
        macro_f1=value / 2,
        images_per_s=None,
        space="small",
        params={},
        config=config,
        by_epoch=[value] * 2,
        seconds=8.0,
        error=None,
        started=None,
        ended=None,
    )


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    labels = [row % 7 for row in range(70)]
    return TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels}))


@pytest.fixture
def run(tmp_path: Path) -> SeedRun:
    run = seed_runs([trial(4, 0.5, config())], ACCURACY, tmp_path / "confirm")[0]
    run.begin()
    return run


def test_the_best_distinct_configurations_get_three_new_seeds_each(tmp_path: Path) -> None:
    dropouts = [config(f"model.dropout={dropout}") for dropout in (0.1, 0.2, 0.3, 0.4)]
    records = [
        trial(0, 0.50, dropouts[0]),
        trial(1, 0.60, dropouts[1]),
        trial(2, 0.60, dropouts[2]),
        trial(3, 0.90, dropouts[3], state="PRUNED"),
        trial(4, 0.59, with_seed(dropouts[1], 77)),  # that of trial 1, but for its seed
        trial(5, 0.40, dropouts[3]),
    ]
    assert [record.number for record in best_configurations(records)] == [1, 2, 0]
    runs = seed_runs(records, ACCURACY, tmp_path)
    assert [run.name for run in runs[:4]] == ["1-seed6", "2-seed6", "0-seed6", "1-seed7"]
    assert len(runs) == 9 and {run.config.training.seed for run in runs} == {6, 7, 8}
    assert all(with_seed(run.config, 5) == run.trial.config for run in runs)
    assert runs[0].seconds_left == 3 * 8.0 / 2
    assert len(seed_runs(records[:1], ACCURACY, tmp_path)) == 3


def test_a_seed_that_some_trial_had_is_not_new(tmp_path: Path) -> None:
    own = config()  # of seed 5
    others = [trial(number, 0.4, with_seed(own, seed)) for number, seed in ((1, 7), (2, 6), (3, 9))]
    another = trial(4, 0.3, config("training.seed=8", "model.dropout=0.4"))
    runs = seed_runs([trial(0, 0.5, own), *others, another], ACCURACY, tmp_path)
    assert [run.name for run in runs if run.trial.number == 0] == ["0-seed8", "0-seed10", "0-seed11"]


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "confirm.parquet").write_bytes(bytes(100))
    with pytest.raises(DataError, match=r"confirm\.parquet: not readable: .*[^.]\. Remove it; `tune --resume"):
        read_confirmation(tmp_path)


def test_a_run_keeps_what_predicts_and_its_metrics(data: TrainingData, run: SeedRun) -> None:
    seen: list[Metrics] = []
    run.train(data, seen.append)
    assert run.folder.closed() and run.folder.history() == seen and len(seen) == 3
    names = {path.name for path in run.folder.path.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "profile.json", "checkpoint"}
    assert load_config(run.folder.config_file).training.seed == 6


class KilledError(BaseException):
    """Stands for a kill: nothing handles it."""


def killed(metrics: Metrics) -> None:
    raise KilledError


def test_a_killed_run_goes_on_after_its_last_epoch(data: TrainingData, run: SeedRun) -> None:
    with pytest.raises(KilledError):
        run.train(data, killed)
    assert not run.folder.closed()
    (first,) = run.folder.history()
    assert run.seconds_left == 2 * 8.0 / 2
    later: list[Metrics] = []
    run.begin()
    run.train(data, later.append)
    assert [line["epoch"] for line in later] == [2, 3]
    assert run.folder.history() == [first, *later]


def test_a_kill_while_it_closes_loses_nothing(
    data: TrainingData, run: SeedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        moved = real(self, target)
        if self == run.folder.last and target.name == ".last.partial":
            raise KilledError
        return moved

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KilledError):
        run.train(data, lambda metrics: None)
    monkeypatch.undo()
    assert run.folder.closed() and len(run.folder.history()) == 3
    run.begin()
    assert not list(run.folder.path.glob(".*"))


def test_the_kept_epoch_is_best_by_the_search_s_objective(data: TrainingData, tmp_path: Path) -> None:
    run = seed_runs([trial(4, 0.5, config("training.epochs=6"))], MACRO_F1, tmp_path / "confirm")[0]
    run.begin()
    run.train(data, lambda metrics: None)
    scores = [line["validation_macro_f1"] for line in run.folder.history()]
    assert read_info(run.folder.best).metrics["validation_macro_f1"] == max(scores)
    write_confirmation(tmp_path, [run], MACRO_F1, {})
    (row,) = read_confirmation(tmp_path)[0].rows
    assert (row["value"], row["macro_f1"], row["best_epoch"]) == (
        max(scores),
        max(scores),
        1 + scores.index(max(scores)),
    )


def test_a_folder_of_another_configuration_is_left_alone(run: SeedRun) -> None:
    other = replace(run, config=config("model.dropout=0.3", "training.seed=6"))
    with pytest.raises(UsageError, match="another configuration than that of trial 4"):
        other.begin()
    assert load_config(run.folder.config_file) == run.config


def test_the_table_holds_finished_and_failed_runs_and_keeps_former_ones(data: TrainingData, tmp_path: Path) -> None:
    runs = seed_runs([trial(4, 0.5, config())], ACCURACY, tmp_path / "confirm")
    write_confirmation(tmp_path, runs, ACCURACY, {})
    assert read_confirmation(tmp_path) == []  # nothing is finished
    runs[0].begin()
    runs[0].train(data, lambda metrics: None)
    write_confirmation(tmp_path, runs, ACCURACY, {"4-seed7": "Traceback\nbroke"})
    (found,) = read_confirmation(tmp_path)
    assert [row["run"] for row in found.rows] == ["4-seed6", "4-seed7"]
    assert found.rows[1]["error"] == "Traceback\nbroke" and found.rows[1]["value"] is None
    assert found.values() == [max(line["validation_accuracy"] for line in runs[0].folder.history())]
    assert (found.searched(), found.searched("macro_f1"), found.spread()) == (0.5, 0.25, None)
    others = seed_runs([trial(9, 0.7, config("model.dropout=0.3"))], ACCURACY, tmp_path / "confirm")
    write_confirmation(tmp_path, others, ACCURACY, {"9-seed6": "broke"})
    assert [one.trial for one in read_confirmation(tmp_path)] == [4, 9]


def made(number: int, searched: float, *values: float) -> Confirmed:
    rows: list[dict[str, Any]] = [
        {"trial": number, "seed": seed, "search_value": searched, "value": value, "error": None}
        for seed, value in enumerate(values, start=1)
    ]
    return Confirmed(number, "small", rows)


def test_what_the_seeds_can_tell_apart() -> None:
    """By hand: a pooled spread of 0.01 with 6 degrees of freedom, t = 2.447, times the root of 2/3."""
    groups = [made(number, 0.6, mean - 0.01, mean, mean + 0.01) for number, mean in enumerate([0.5, 0.6, 0.7])]
    assert [group.spread() for group in groups] == pytest.approx([0.01] * 3)
    assert resolution(groups) == pytest.approx(2.4469 * 0.01 * (2 / 3) ** 0.5, rel=1e-4)
    assert resolution([made(0, 0.6, 0.5), made(1, 0.6, 0.5)]) is None
