"""A study that goes on with other spaces: what fits them teaches the sampler, and nothing is lost."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_ray.config.search_space import SearchSpace
from fer_ray.search.strategy import SAMPLERS, Strategy
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord


def space(search: dict[str, Any], **model: Any) -> SearchSpace:
    return SearchSpace.model_validate({"model": {"name": "cnn3", "dropout": 0.5} | model, "search": search})


RATE = {"optimizer.learning_rate": {"log_uniform": [0.01, 1]}}
WIDE = space(RATE | {"model.dropout": {"uniform": [0.0, 0.6]}})
NARROW = space(RATE | {"model.dropout": {"uniform": [0.3, 0.6]}})


def run_trials(study: Study, count: int, epochs: int = 2) -> list[TrialRecord]:
    """Run trials whose accuracy is the higher the lower their dropout."""
    for _ in range(count):
        candidate = study.ask()
        for epoch in range(1, epochs + 1):
            accuracy = epoch / epochs * (1 - candidate.config.model.dropout)
            values = {"validation_accuracy": accuracy, "validation_macro_f1": accuracy / 2, "seconds": 1.0}
            study.report(candidate.number, {"epoch": float(epoch), **values})
        study.complete(candidate.number)
    return study.records()


def inside(record: TrialRecord) -> TrialRecord:
    """Return a record without what tells whether its study's spaces could have drawn it."""
    return replace(record, is_outside=False)


def test_what_does_not_fit_stays_on_record_and_teaches_nobody(storage: str) -> None:
    study = Study.create("one", storage, {"a": WIDE}, "data")
    records = run_trials(study, 8)
    changed = study.with_spaces("two", {"a": NARROW})
    fitting = [record.config.model.dropout >= 0.3 for record in records]
    assert True in fitting and False in fitting
    assert [inside(record) for record in changed.records()] == records
    assert [not record.is_outside for record in changed.records()] == fitting
    assert changed.best() is not None and study.best() == inside(changed.best() or records[0])
    assert changed.counted() == 8 and changed.pareto_front() == study.pareto_front()

    before, after = (optuna.load_study(study_name=name, storage=storage).trials for name in ("one", "two"))
    assert [trial.state.name for trial in before] == ["COMPLETE"] * 8  # the previous study stays as it is
    for fits, old, new in zip(fitting, before, after, strict=True):
        assert new.number == old.number and new.datetime_complete == old.datetime_complete
        assert new.state.name == ("COMPLETE" if fits else "FAIL")
        assert new.params == (old.params if fits else {})
        assert new.intermediate_values == (old.intermediate_values if fits else {})
        assert new.user_attrs["macro_f1"] == old.user_attrs["macro_f1"]
    # All trials have the same distributions: a sampler that wants what all share finds everything.
    assert optuna.search_space.intersection_search_space(after).keys() == after[0].params.keys()
    assert optuna.search_space.intersection_search_space(after)["model.dropout"].low == 0.3

    again = Study.load("two", storage, "data").with_spaces("three", {"a": WIDE})
    assert again.records() == records  # with the first space again they all fit


def test_a_value_more_is_the_default_in_earlier_trials(storage: str) -> None:
    study = Study.create("one", storage, {"a": WIDE}, "data")
    run_trials(study, 3)
    decay = space(dict(WIDE.search) | {"optimizer.weight_decay": {"uniform": [0.0, 0.01]}})
    changed = study.with_spaces("two", {"a": decay})
    assert [record.params["optimizer.weight_decay"] for record in changed.records()] == [
        WIDE.optimizer.weight_decay
    ] * 3
    assert changed.ask().number == 3  # the defaults are not tried a second time


def test_another_default_fits_nothing(storage: str) -> None:
    study = Study.create("one", storage, {"a": WIDE}, "data")
    records = run_trials(study, 3)
    other = space(dict(WIDE.search), name="lenet")
    changed = study.with_spaces("two", {"a": other})
    assert [record.is_outside for record in changed.records()] == [True] * 3
    assert changed.records()[0].config == records[0].config
    assert changed.ask().config == other.defaults


def test_a_second_space_beside_the_first(storage: str) -> None:
    study = Study.create("one", storage, {"a": WIDE}, "data")
    records = run_trials(study, 3)
    changed = study.with_spaces("two", {"b": space(RATE, name="lenet"), "a": WIDE})
    assert changed.records() == records
    parameters = optuna.load_study(study_name="two", storage=storage).trials[0].params
    assert parameters == {"architecture": "a", "a/model.dropout": 0.5, "a/optimizer.learning_rate": 0.1}
    assert changed.ask().space == "b"


def test_interrupted_trials_go_on_where_they_fit(storage: str) -> None:
    study = Study.create("one", storage, {"a": WIDE}, "data")
    kept = study.ask()
    other = next(drawn for drawn in iter(study.ask, None) if drawn.config.model.dropout < 0.3)
    study.fail_interrupted()
    changed = study.with_spaces("two", {"a": NARROW})
    assert changed.counted() == 0
    goes_on = changed.ask()
    assert (goes_on.config, goes_on.continues) == (kept.config, (kept.number,))
    assert other.number not in changed.needed()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on(sampler: str, tmp_path: Path) -> None:
    if sampler == "cmaes" and find_spec("cmaes") is None:
        pytest.skip("the package cmaes is not installed")
    study = Study.create("one", f"sqlite:///{tmp_path}/s.db", {"a": WIDE}, "data", Strategy(sampler=sampler))
    run_trials(study, 12, epochs=1)
    changed = study.with_spaces("two", {"a": NARROW})
    records = run_trials(changed, 4)[12:]
    assert all(record.config.model.dropout >= 0.3 for record in records)
    assert len({record.config.model.dropout for record in records}) == 4


def test_of_several_objectives_all_is_kept(storage: str) -> None:
    strategy = Strategy(("accuracy", "macro_f1"), "tpe", "none")
    study = Study.create("one", storage, {"a": WIDE}, "data", strategy)
    records = run_trials(study, 6)
    changed = study.with_spaces("two", {"a": NARROW})
    assert [inside(record) for record in changed.records()] == records
    assert changed.pareto_front() == study.pareto_front()
    assert len(run_trials(changed, 1)) == 7
