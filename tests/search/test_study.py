"""The Optuna study of a search: states, interrupted trials, and studies that stay apart."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_ray.config.search_space import SearchSpace
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.search.database import translate_database_errors
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord

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
    assert [first.number, second.number, third.number] == list(study.running) == [0, 1, 2]
    parameters = optuna.load_study(study_name="s", storage=storage).trials[0].params
    assert parameters == {"architecture": "a", "a/model.dropout": 0.5, "a/training.epochs": 16}


def run(study: Study, accuracies: Sequence[float], close: str) -> TrialRecord:
    """Draw a trial, report its epochs and close it."""
    number = study.ask().number
    for epoch, accuracy in enumerate(accuracies, start=1):
        study.report(number, metrics(epoch, accuracy))
    if close == "interrupt":
        study.interrupt_running()
    else:
        getattr(study, close)(number, *["it broke"] * (close == "fail"))
    return study.records()[number]


def test_values_are_of_the_best_epoch_and_only_complete_trials_are_best(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    record = run(study, [0.1, 0.4, 0.4, 0.3], "complete")
    assert (record.state, record.value, record.macro_f1, record.best_epoch) == ("COMPLETE", 0.4, 0.2, 2)
    assert (record.by_epoch, record.seconds) == ([0.1, 0.4, 0.4, 0.3], 6.0)
    for accuracy, close in [(0.9, "prune"), (0.5, "complete"), (0.5, "complete"), (0.9, "fail")]:
        run(study, [accuracy], close)
    best = study.best()
    assert best is not None and best.number == 2  # the first of equals
    assert [record.state for record in study.records()] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "FAIL"]
    assert study.records()[4].error == "it broke"


def test_where_none_is_complete_the_best_epoch_of_what_was_stopped_is_best() -> None:
    study, best = Study.create("s", "sqlite:///:memory:", {"a": SPACE}, "data"), list[int]()
    closed = [
        ([0.3, 0.6, 0.2], "prune"),
        ([0.4, 0.5], "stop"),
        ([0.9], "fail"),
        ([0.7, 0.1], "interrupt"),
        ([], "stop"),
    ]
    for accuracies, close in closed:
        run(study, accuracies, close)
        found = study.best()
        best += [found.number] if found else []
    assert best == [0, 0, 0, 3, 3]
    assert found is not None and (found.value, found.accuracy, found.best_epoch) == (0.7, 0.7, 1)
    assert found.stopped.startswith("stopped after epoch 2 of ")


def test_what_had_no_time_for_an_epoch_is_begun_again(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    defaults, other = study.ask(), study.ask()
    study.report(other.number, metrics(1, 0.3))
    assert study.stop(defaults.number).interrupted and study.stop(other.number).state == "PRUNED"
    assert study.counted() == 1
    again = study.ask()
    assert (again.config, again.folder) == (defaults.config, defaults.folder)


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with contextlib.closing(sqlite3.connect(file)) as theirs:
        theirs.execute("create table studies (a int)")
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"theirs\.db: holds tables of another program \(studies\)"):
        Study.create("s", f"sqlite:///{file}", {"a": SPACE}, "data")
    assert file.read_bytes() == before


def test_databases_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"other\.db: no such database"):
        Study.read("s", f"sqlite:///{tmp_path / 'other.db'}")
    assert not list(tmp_path.iterdir())
    (tmp_path / "s.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(UsageError, match=r"database of studies: file is not a database\. Restore it"):
        Study.read("s", f"sqlite:///{tmp_path / 's.db'}")


def test_a_database_that_goes_away_ends_a_search_in_words(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    study = Study.create("s", storage, {"a": SPACE}, "data")
    (tmp_path / "s.db").unlink()
    with pytest.raises(FerRayError, match=r"no longer answers: .* --resume\.$"), translate_database_errors(storage):
        try:
            study.ask()
        except Exception as error:
            raise RuntimeError("as Ray Tune wraps it") from error


def test_interrupted_trials_fail_do_not_count_and_are_continued(storage: str) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    lost = study.ask()
    study.report(lost.number, metrics(1, 0.4))
    resumed = Study.resume("s", storage, {"a": SPACE}, "data")
    assert resumed.interrupt_running() == 1 and resumed.counted() == 0
    record = resumed.records()[0]
    assert record.state == "FAIL" and record.interrupted and "interrupted" in (record.error or "")
    assert resumed.folders_in_use() == {"0"}
    again = resumed.ask()
    assert (again.number, again.config, again.folder) == (1, lost.config, "0")
    assert Study.resume("s", storage, {"a": SPACE}, "data").interrupt_running() == 1
    once_more = Study.resume("s", storage, {"a": SPACE}, "data")
    candidate = once_more.ask()
    assert (candidate.config, candidate.folder) == (lost.config, "0")
    for epoch, accuracy in ((1, 0.4), (2, 0.5), (2, 0.5)):  # a restarted process reports an epoch twice
        once_more.report(candidate.number, metrics(epoch, accuracy))
    record = once_more.complete(candidate.number)
    assert (record.continues, record.by_epoch, record.seconds) == (1, [0.4, 0.5], 3.0)


def test_a_kill_during_an_interrupt_neither_loses_nor_doubles_it(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.create("s", storage, {"a": SPACE}, "data")
    lost = study.ask()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(study.optuna, "tell", killed)
        study.interrupt_running()
    resumed = Study.resume("s", storage, {"a": SPACE}, "data")
    assert resumed.interrupt_running() == 1
    states = [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).trials]
    assert states == ["FAIL", "WAITING"]
    assert resumed.ask().config == lost.config


def test_studies_stay_apart_and_keep_their_objectives_and_dataset(storage: str) -> None:
    Study.create("one", storage, {"a": SPACE}, "data").ask()
    assert Study.create("two", storage, {"a": SPACE}, "data").ask().number == 0
    with pytest.raises(UsageError, match="one"):
        Study.create("one", storage, {"a": SPACE}, "data")
    with pytest.raises(UsageError, match="no study of this search"):
        Study.read("three", storage)
    with pytest.raises(UsageError, match="--objective accuracy"):
        Study.resume("one", storage, {"a": SPACE}, "data", Strategy(("macro_f1",)))
    with pytest.raises(DataError, match="another dataset"):
        Study.resume("one", storage, {"a": SPACE}, "others")


def test_resuming_allows_other_bounds_of_ranges(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    study = Study.create("s", storage, {"a": SPACE, "b": OTHER}, "data")
    for _ in range(12):
        run(study, [0.5], "complete")
    records = study.records()
    high = changed(dropout=0.9, low=0.7, default=0.8)
    wider = Study.resume("s", storage, {"b": OTHER, "a": high}, "data")
    assert wider.records() == records
    drawn = [candidate.config.model.dropout for _ in range(12) if (candidate := wider.ask()).space == "a"]
    assert drawn and all(0.7 <= dropout <= 0.9 for dropout in drawn)
    with pytest.raises(UsageError, match="--sampler gp: can't learn from trials with other ranges"):
        Study.resume("s", storage, {"a": high, "b": OTHER}, "data", Strategy(sampler="gp"))


def changed(dropout: float = 0.6, low: float = 0.0, default: float = 0.5, **model: Any) -> SearchSpace:
    raw = SPACE.model_dump() | {"model": {"name": "cnn3", "dropout": default} | model}
    raw["search"]["model.dropout"] = {"uniform": [low, dropout]}
    return SearchSpace.model_validate(raw)


@pytest.mark.parametrize(
    ("spaces", "difference"),
    [
        ({"a": changed(name="lenet")}, "a: model.name"),
        ({"a": SPACE, "b": OTHER}, "space b"),
        ({"a": SPACE.model_copy(update={"search": OTHER.search})}, "a: model.dropout, a: opti.*, a: training.epochs"),
    ],
)
def test_resuming_refuses_other_spaces(spaces: dict[str, SearchSpace], difference: str, tmp_path: Path) -> None:
    Study.create("s", f"sqlite:///{tmp_path / 's.db'}", {"a": SPACE}, "data")
    with pytest.raises(UsageError, match=f"differ from those of earlier calls in {difference}.* Restore the rest"):
        Study.resume("s", f"sqlite:///{tmp_path / 's.db'}", spaces, "data")
