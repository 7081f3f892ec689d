"""The Optuna study of a search: states, interrupted trials, and studies that stay apart."""

import contextlib
import sqlite3
from pathlib import Path

import optuna
import pytest

from fer_ray.config.search_space import SearchSpace
from fer_ray.errors import DataError, UsageError
from fer_ray.search.database import SQLITE_PATIENCE_S
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study

SPACE = SearchSpace.model_validate(
    {
        "model": {"name": "cnn3", "dropout": 0.5},
        "training": {"epochs": 16},
        "search": {"model.dropout": {"uniform": [0, 0.6]}, "training.epochs": {"int": [1, 30]}},
    }
)
OTHER = SearchSpace.model_validate({"search": {"optimizer.learning_rate": {"log_uniform": [0.01, 1]}}})


def metrics(epoch: int, accuracy: float) -> dict[str, float]:
    values = {"validation_accuracy": accuracy, "validation_macro_f1": accuracy / 2}
    return {"epoch": float(epoch), "seconds": 1.5, **values}


def test_defaults_come_first_then_what_the_search_draws(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE, "b": OTHER}, "data")
    assert optuna.load_study(study_name="s", storage=storage).metric_names == ["validation accuracy"]
    first, second, third = study.ask(), study.ask(), study.ask()
    assert (first.space, first.config) == ("a", SPACE.defaults)
    assert (second.space, second.config) == ("b", OTHER.defaults)
    assert third.config not in (SPACE.defaults, OTHER.defaults)
    assert [first.number, second.number, third.number] == study.running() == [0, 1, 2]
    parameters = optuna.load_study(study_name="s", storage=storage).trials[0].params
    assert parameters == {"architecture": "a", "a/model.dropout": 0.5, "a/training.epochs": 16}


def test_values_are_of_the_best_epoch(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    number = study.ask().number
    for epoch, accuracy in enumerate([0.1, 0.4, 0.4, 0.3], start=1):
        study.report(number, metrics(epoch, accuracy))
    record = study.complete(number)
    assert (record.state, record.value, record.macro_f1, record.best_epoch) == ("COMPLETE", 0.4, 0.2, 2)
    assert (record.by_epoch, record.seconds) == ([0.1, 0.4, 0.4, 0.3], 6.0)
    assert study.best() == record


def test_only_complete_trials_are_best_and_the_first_of_equals(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    for accuracy, close in [(0.3, study.complete), (0.9, study.prune), (0.5, study.complete), (0.5, study.complete)]:
        number = study.ask().number
        study.report(number, metrics(1, accuracy))
        close(number)
    study.fail(study.ask().number, "it broke")
    best = study.best()
    assert best is not None and best.number == 2
    assert [record.state for record in study.records()] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "FAIL"]
    assert study.records()[4].error == "it broke"


def test_where_none_is_complete_the_best_epoch_of_what_was_stopped_is_best(tmp_path: Path) -> None:
    study = Study.create("s", f"sqlite:///{tmp_path / 's.db'}", {"a": SPACE}, "data")
    closed = [
        ([0.3, 0.6, 0.2], study.prune),
        ([0.4, 0.5], study.stop),
        ([0.9], lambda number: study.fail(number, "it broke")),
        ([0.7, 0.1], lambda number: study.lose(number, "gone")),
        ([], study.stop),
    ]
    best = list[int | None]()
    for accuracies, close in closed:
        number = study.ask().number
        for epoch, accuracy in enumerate(accuracies, start=1):
            study.report(number, metrics(epoch, accuracy))
        close(number)
        best.append(study.best().number if study.best() else None)  # type: ignore[union-attr]
    assert best == [0, 0, 0, 3, 3]
    found = study.best()
    assert found is not None and (found.reached, found.accuracy, found.best_epoch) == (0.7, 0.7, 1)
    assert found.stopped.startswith("stopped after epoch 2 of ")
    continuing = study.ask()
    assert continuing.continues == (4, 3)
    study.fail(continuing.number, "lost too often")
    assert study.best() == study.records()[0]


def test_what_had_no_time_for_an_epoch_is_begun_again(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    defaults, other = study.ask(), study.ask()
    study.report(other.number, metrics(1, 0.3))
    assert study.stop(defaults.number).interrupted and study.stop(other.number).state == "PRUNED"
    assert study.counted() == 1
    again = study.ask()
    assert (again.config, again.continues) == (defaults.config, (defaults.number,))


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with contextlib.closing(sqlite3.connect(file)) as theirs:
        theirs.execute("create table studies (a int)")
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"theirs\.db: holds tables of another program \(studies\)"):
        Study.create("s", f"sqlite:///{file}", {"a": SPACE}, "data")
    assert file.read_bytes() == before


def test_a_study_is_not_looked_for_in_a_new_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"other\.db: no such database"):
        Study.load("s", f"sqlite:///{tmp_path / 'other.db'}", "data")
    assert not list(tmp_path.iterdir())


def test_a_damaged_database_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(UsageError, match=r"database of studies: file is not a database\. Restore it"):
        Study.load("s", f"sqlite:///{tmp_path / 's.db'}", "data")


def test_interrupted_trials_fail_do_not_count_and_are_continued(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    lost = study.ask()
    resumed = Study.load("s", storage, "data")
    assert resumed.fail_interrupted() == 1
    assert resumed.counted() == 0
    record = resumed.records()[0]
    assert record.state == "FAIL" and record.interrupted and "interrupted" in (record.error or "")
    assert resumed.needed() == {0}  # its folder is to be taken over
    again = resumed.ask()
    assert (again.number, again.config, again.continues) == (1, lost.config, (0,))
    assert resumed.needed() == {1}
    once_more = Study.load("s", storage, "data")
    assert once_more.fail_interrupted() == 1
    assert once_more.needed() == {0, 1}  # killed before it took the folder over, perhaps
    assert once_more.ask().continues == (1, 0)


def test_a_kill_while_a_trial_is_handed_on_neither_loses_nor_doubles_it(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    lost = study.ask()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(study, "_interrupt", killed)
        study.fail_interrupted()
    resumed = Study.load("s", storage, "data")
    assert resumed.fail_interrupted() == 1
    states = [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).trials]
    assert states == ["FAIL", "WAITING"]
    assert resumed.ask().config == lost.config


def test_what_is_lost_too_often_fails(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    most = SPACE.training.max_failures
    for failures in range(1, most + 1):
        record = study.lose(study.ask().number, "the node died")
        assert record.interrupted and record.error == "interrupted: the node died"
        assert study.counted() == 0, failures
        study = Study.load("s", storage, "data")  # a resume in between begins no new count
    last = study.ask()
    assert (last.config, last.continues) == (SPACE.defaults, tuple(reversed(range(most))))
    record = study.lose(last.number, "the node died")
    assert not record.interrupted and f"lost {most + 1} times" in (record.error or "")
    assert study.counted() == 1 and study.needed() == set()


def test_a_resumed_search_draws_other_candidates(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    drawn = []
    for _ in range(3):
        study = Study.load("s", storage, "data")
        candidate = study.ask()
        study.fail(candidate.number, "no matter")
        drawn.append(candidate.config.model.dropout)
    assert len(set(drawn)) == 3


def test_studies_stay_apart(storage: str) -> None:
    Study.create("one", storage, {"a": SPACE}, "data").ask()
    assert Study.create("two", storage, {"a": SPACE}, "data").ask().number == 0
    with pytest.raises(UsageError, match="one"):
        Study.create("one", storage, {"a": SPACE}, "data")
    with pytest.raises(UsageError, match="no study of this search"):
        Study.load("three", storage, "data")


def test_resuming_wants_the_same_objectives_and_dataset(storage: str) -> None:
    Study.create("s", storage, {"a": SPACE}, "data")
    with pytest.raises(UsageError, match="--objective accuracy"):
        Study.load("s", storage, "data", Strategy(("macro_f1",)))
    with pytest.raises(DataError, match="another dataset"):
        Study.load("s", storage, "others")


def test_a_file_that_a_dashboard_reads_is_waited_for(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = Study.create("s", storage, {"a": SPACE}, "data")
    with study._study._storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 1000 * SQLITE_PATIENCE_S
