"""Runs with new seeds: which configurations get them, what a kill leaves, and what they say of the search."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.reporting.search import confirmation_notes, confirmation_table
from fer_ray.search.confirmation import (
    Confirmed,
    best_configurations,
    confirmed,
    new_seeds,
    open_confirmation,
    resolution,
    with_seed,
)
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord

SPACE = SearchSpace.model_validate(
    {"training": {"epochs": 2, "seed": 5}, "search": {"model.dropout": {"uniform": [0.0, 0.6]}}}
)


def config(*overrides: str) -> Config:
    return load_config(None, ["model.name=cnn3", "training.seed=5", *overrides])


def trial(number: int, value: float | None, config: Config = SPACE.defaults, state: str = "COMPLETE") -> TrialRecord:
    study = Study.create("search", "sqlite:///:memory:", {"fast": SPACE}, "data")
    if value is None:
        study.fail(study.ask().number, "it diverged")
    else:
        run(study, value)
    (record,) = study.records()
    return replace(record, number=number, config=config, state="FAIL" if value is None else state)


def run(study: Study, accuracy: float) -> TrialRecord:
    number = study.ask().number
    metrics = {"validation_accuracy": accuracy, "validation_macro_f1": accuracy / 2, "seconds": 1.0}
    study.report(number, {"epoch": 1.0, **metrics})
    return study.complete(number)


def test_the_best_configurations_without_those_that_differ_in_the_seed() -> None:
    dropouts = [config(f"model.dropout={dropout}") for dropout in (0.1, 0.2, 0.3, 0.4)]
    records = [
        trial(0, 0.50, dropouts[0]),
        trial(1, 0.60, dropouts[1]),
        trial(2, 0.60, dropouts[2]),
        trial(3, 0.90, dropouts[3], state="PRUNED"),
        trial(4, 0.59, with_seed(dropouts[1], 7)),  # that of trial 1, but for its seed
        trial(5, 0.40, dropouts[3]),
    ]
    assert [record.number for record in best_configurations(records)] == [1, 2, 0]
    assert new_seeds(records) == [6, 8, 9]  # 5 and 7 are taken


def test_each_configuration_is_trained_with_each_seed_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    search = Study.create("search", storage, {"fast": SPACE}, "data")
    for accuracy in (0.4, 0.6, 0.5):
        run(search, accuracy)
    runs = open_confirmation(search, storage)
    first = [runs.ask() for _ in range(3)]
    assert [candidate.folder for candidate in first] == ["1-seed6", "2-seed6", "0-seed6"]
    assert all(with_seed(one.config, 5) == search.records()[int(one.space)].config for one in first)
    runs = open_confirmation(search, storage)  # after a kill
    assert runs.interrupt_running() == 3
    done = [run(runs, accuracy) for accuracy in (0.61, 0.52, 0.41, 0.58, 0.5, 0.45)]
    assert [record.folder for record in done[:3]] == ["1-seed7", "2-seed7", "0-seed7"]
    runs.fail(runs.ask().number, "it diverged")
    folders = {run(runs, 0.5).folder, run(runs, 0.5).folder}
    assert folders == {"2-seed6", "0-seed6"} and runs.counted() == 9
    found = confirmed(search, open_confirmation(search, storage))
    assert [one.trial.number for one in found] == [1, 2, 0]
    assert found[0].values("accuracy") == [0.61, 0.58] and found[0].searched("accuracy") == 0.6
    assert [one.state for one in found[0].runs] == ["FAIL", "COMPLETE", "COMPLETE"]


def made(number: int, searched: float, values: Sequence[float | None]) -> Confirmed:
    return Confirmed(trial(number, searched), [trial(seed, value) for seed, value in enumerate(values, start=1)])


def test_what_the_seeds_can_tell_apart() -> None:
    """By hand: a pooled spread of 0.01 with 6 degrees of freedom, t = 2.447, times the root of 2/3."""
    groups = [made(number, 0.6, (mean - 0.01, mean, mean + 0.01)) for number, mean in enumerate([0.5, 0.6, 0.7])]
    assert [group.spread("accuracy") for group in groups] == pytest.approx([0.01] * 3)
    assert resolution(groups, "accuracy") == pytest.approx(2.4469 * 0.01 * (2 / 3) ** 0.5, rel=1e-4)
    assert resolution([made(0, 0.6, [0.5]), made(1, 0.6, [0.5])], "accuracy") is None


def test_how_certain_the_means_are() -> None:
    far, near = made(2, 0.658, [0.65, 0.66, 0.655]), made(7, 0.66, [0.64, 0.65, 0.63])
    (note,) = confirmation_notes([far, near], OBJECTIVES["accuracy"])
    assert note.endswith("means must differ by 1.8 points to be distinct (95%); no neighbours do.")
    (note,) = confirmation_notes([far, made(7, 0.66, [0.63, 0.635, 0.625])], OBJECTIVES["macro_f1"])
    assert "differ by 0.0" in note and note.endswith("; some neighbours do.")


def test_failed_runs_are_left_out_of_the_means() -> None:
    confirmed = [made(7, 0.66, [0.64, 0.65, None]), made(2, 0.6, [None, None])]
    table = confirmation_table(confirmed, OBJECTIVES["accuracy"])
    assert list(table.rows[0])[:7] == ["7 (fast)", "66.00%", "2", "64.00%", "65.00%", "64.50%", "0.71"]
    assert list(table.rows[1])[:4] == ["2 (fast)", "60.00%", "0", "–"]
