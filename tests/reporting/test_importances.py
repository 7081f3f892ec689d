"""fANOVA importances of a study: what mattered comes first, few trials give none, and reading writes nothing."""

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from fer_ray.errors import DataError
from fer_ray.learning.study import Study
from fer_ray.reporting.importances import MIN_TRIALS, read_importances
from fer_ray.search_spaces import SearchSpace

SEARCH = {"model.dropout": {"uniform": [0.0, 0.6]}, "optimizer.learning_rate": {"uniform": [0.01, 0.9]}}
SPACES = {name: SearchSpace.model_validate({"model": {"name": name}, "search": SEARCH}) for name in ("cnn3", "fast")}


def search(folder: Path, trials: int, spaces: dict[str, SearchSpace], flat: bool = False) -> Path:
    """Write a study in which the accuracy follows from the dropout alone."""
    folder.mkdir()
    storage = URL.create("sqlite", database=str(folder / "study.db")).render_as_string()
    study = Study.create("search", storage, spaces, "fingerprint")
    for _ in range(trials):
        candidate = study.ask()
        accuracy = 0.5 if flat else 1 - candidate.config.model.dropout
        metrics = {"epoch": 1, "validation_accuracy": accuracy, "validation_macro_f1": accuracy, "seconds": 1.0}
        study.report(candidate.number, metrics)
        study.complete(candidate.number)
    (folder / "study.json").write_text(json.dumps({"study": "search"}))
    return folder


def test_what_mattered_comes_first(tmp_path: Path) -> None:
    folder = search(tmp_path / "a %20 search#1", MIN_TRIALS, {"fast": SPACES["fast"]})
    before = (folder / "study.db").read_bytes()
    (found,) = read_importances(folder)
    assert (found.space, found.trials) == ("fast", MIN_TRIALS)
    assert list(found.shares) == ["model.dropout", "optimizer.learning_rate"]
    assert found.shares["model.dropout"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (folder / "study.db").read_bytes() == before
    assert {file.name for file in folder.iterdir()} == {"study.db", "study.json"}


def test_few_trials_or_equal_ones_tell_nothing(tmp_path: Path) -> None:
    few, flat = search(tmp_path / "few", MIN_TRIALS - 1, {"fast": SPACES["fast"]}), tmp_path / "flat"
    assert [(one.trials, one.shares) for one in read_importances(few)] == [(MIN_TRIALS - 1, {})]
    search(flat, MIN_TRIALS, {"fast": SPACES["fast"]}, flat=True)
    assert [(one.trials, one.shares) for one in read_importances(flat)] == [(MIN_TRIALS, {})]


def test_each_of_several_spaces_by_its_own_trials(tmp_path: Path) -> None:
    found = {one.space: one for one in read_importances(search(tmp_path / "two", 2 * MIN_TRIALS, SPACES))}
    assert sum(one.trials for one in found.values()) == 2 * MIN_TRIALS
    for one in found.values():
        assert list(one.shares) == (["model.dropout", "optimizer.learning_rate"] if one.trials >= MIN_TRIALS else [])
    assert any(one.shares for one in found.values())


def test_no_database_and_a_damaged_one(tmp_path: Path) -> None:
    assert read_importances(tmp_path) == []
    (tmp_path / "study.json").write_text(json.dumps({"study": "search"}))
    (tmp_path / "study.db").write_bytes(b"no database, but long enough to look like one" * 99)
    with pytest.raises(DataError, match=r"study\.db: not readable"):
        read_importances(tmp_path)
