"""Samplers and objectives: drawn anew the same by seed, resumed, and several objectives in one study."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_ray.config.search_space import SearchSpace
from fer_ray.search.strategy import GP_STARTUP, Strategy, choose_strategy
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord

SPACE = SearchSpace.model_validate(
    {
        "search": {
            "model.dropout": {"uniform": [0, 0.6]},
            "optimizer.learning_rate": {"log_uniform": [0.01, 1]},
            "training.epochs": {"int": [5, 40]},
        }
    }
)
TWO = Strategy(("accuracy", "images_per_s"), "tpe", "none")


def dominates(one: TrialRecord, other: TrialRecord) -> bool:
    assert one.values and other.values
    as_good = all(mine >= its for mine, its in zip(one.values, other.values, strict=True))
    return as_good and one.values != other.values


def run_trials(study: Study, trials: int) -> list[TrialRecord]:
    """Run trials whose accuracy follows from the dropout and whose speed from the epochs."""
    for _ in range(trials):
        candidate = study.ask()
        for epoch in (1, 2):
            accuracy = epoch * (1 - abs(candidate.config.model.dropout - 0.4)) / 2
            metrics = {"epoch": float(epoch), "validation_accuracy": accuracy, "validation_macro_f1": 1 - accuracy}
            speed = {"inference_images_per_s": 1000.0 * candidate.config.training.epochs, "seconds": 1.0}
            study.report(candidate.number, metrics | speed)
        study.complete(candidate.number)
    return study.records()


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "qmc"])
def test_samplers_follow_their_seed_and_resume(sampler: str) -> None:
    strategy, spaces, drawn = Strategy(sampler=sampler), {"s": SPACE}, []
    for _ in range(2):
        study = Study.create("s", "sqlite:///:memory:", spaces, "data", strategy)
        run_trials(study, GP_STARTUP + 1)
        records = run_trials(Study(study.optuna, spaces, strategy), 2)
        drawn.append([record.params for record in records])
    assert drawn[0] == drawn[1]
    assert len({tuple(params.values()) for params in drawn[0]}) == GP_STARTUP + 3
    assert drawn[0][0] == {"model.dropout": 0.1, "optimizer.learning_rate": 0.1, "training.epochs": 26}


def test_two_objectives(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/s.db"
    study = Study.create("s", database, {"s": SPACE}, "data", TWO)
    records = run_trials(study, 10)
    lost = study.ask()
    assert study.prune(lost.number).values is None  # its time was over before an epoch
    front = study.pareto_front()
    for record in records:
        assert record.values == (record.accuracy, record.images_per_s) and record.by_epoch[1] == record.values[0]
        assert (record.number in front) == (not any(dominates(other, record) for other in records))
    best = study.best()
    assert best is not None and best.accuracy == max(record.accuracy or 0 for record in records)
    assert Study.read("s", database).records() == study.records()


def test_macro_f1_picks_its_own_epoch(tmp_path: Path) -> None:
    study = Study.create("s", f"sqlite:///{tmp_path}/s.db", {"s": SPACE}, "data", Strategy(("macro_f1",)))
    (record,) = run_trials(study, 1)  # its accuracy rises, so that its made-up macro-F1 falls
    assert record.best_epoch == 1 and record.value == record.macro_f1 == max(record.by_epoch)
    assert record.accuracy == pytest.approx(1 - record.value)


def test_the_scheduler_follows_the_objectives() -> None:
    def chosen(*objective: str) -> Strategy:
        options = {"objective": objective, "sampler": "gp", "scheduler": None, "search_spaces": {"s": SPACE}}
        return choose_strategy(SimpleNamespace(**options))  # type: ignore[arg-type]

    several = chosen("accuracy", "macro_f1")
    assert chosen("accuracy").scheduler == "asha" and several.scheduler == "none"
    assert "no trial is stopped early" in several.notes()[0]


STRONG, WEAK = [0.5, 0.55, 0.6, 0.62, 0.64, 0.65, 0.66, 0.66, 0.67], [0.1] * 9
NINE = SearchSpace.model_validate(
    {"training": {"epochs": 9}, "search": {"training.epochs": {"int": [1, 90]}, "model.dropout": {"uniform": [0, 0.6]}}}
)


def epochs_of(study: Study, values: list[float], epochs: int = 9) -> int:
    """Run a trial of so many epochs and return after how many it was stopped."""
    study.optuna.enqueue_trial({"training.epochs": epochs, "model.dropout": 0.1})
    while (candidate := study.ask()).config.training.epochs != epochs:
        study.fail(candidate.number, "not the one")
    for epoch, value in enumerate(values, start=1):
        metrics = {"epoch": float(epoch), "validation_accuracy": value, "validation_macro_f1": value, "seconds": 1.0}
        if study.report(candidate.number, metrics):
            study.prune(candidate.number)
            return epoch
    study.complete(candidate.number)
    return len(values)


def searched(scheduler: str, trials: int = 17) -> Study:
    """Return a resumed study with strong trials, each better than those before."""
    space, strategy = {"s": NINE}, Strategy(sampler="random", scheduler=scheduler)
    study = Study.create("s", "sqlite:///:memory:", space, "data", strategy)
    assert [epochs_of(study, [value + number / 1000 for value in STRONG]) for number in range(trials)] == [9] * trials
    return Study(study.optuna, space, strategy)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_the_weak_stop_and_the_strong_finish(scheduler: str) -> None:
    study = searched(scheduler)
    reached = [epochs_of(study, WEAK) for _ in range(17)]
    assert min(reached) == 1
    assert epochs_of(study, [value + 0.1 for value in STRONG]) == 9
    # Trials are compared at the same fraction of their epochs; a bracket of Hyperband never compares.
    assert min(epochs_of(study, [0.1] * 90, epochs=90) for _ in range(4)) < 90
    assert epochs_of(study, [0.1], epochs=1) == 1  # the last epoch is never judged
