"""fANOVA importances of a search: what mattered comes first, few trials give none, conditional values are left out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fer_ray.reporting.search_costs import MIN_TRIALS, importances
from fer_ray.reporting.search_table import SearchedValue, SearchTable

SEARCHED = [
    SearchedValue("model.dropout", "uniform"),
    SearchedValue("optimizer.learning_rate", "log_uniform"),
    SearchedValue("optimizer.name", "categorical"),
    SearchedValue("optimizer.momentum", "uniform"),
]


def searched(
    count: int, accuracy: Callable[[dict[str, Any]], float], spaces: Sequence[str] = ("fast",), state: str = "COMPLETE"
) -> SearchTable:
    """Make trials of the spaces in turn; only ``sgd`` has a momentum."""
    draw = np.random.default_rng(0)
    trials = []
    for number in range(count):
        optimizer = ("sgd", "adam")[draw.integers(2)]
        trial = {
            "number": number,
            "state": state,
            "space": spaces[number % len(spaces)],
            "model.dropout": draw.uniform(0, 0.6),
            "optimizer.learning_rate": 10 ** draw.uniform(-3, 0),
            "optimizer.name": optimizer,
            "optimizer.momentum": draw.uniform(0, 1) if optimizer == "sgd" else None,
        }
        trials.append(trial | {"value": accuracy(trial)})
    return SearchTable(trials, SEARCHED)


def test_what_mattered_comes_first() -> None:
    (found,) = importances(searched(MIN_TRIALS, lambda trial: 1 - trial["model.dropout"]))
    assert (found.space, found.trials) == ("fast", MIN_TRIALS)
    assert next(iter(found.shares)) == "model.dropout"
    assert found.shares["model.dropout"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)


def test_values_that_only_some_trials_have_are_left_out() -> None:
    (found,) = importances(searched(MIN_TRIALS, lambda trial: 0.5 + 0.1 * (trial["optimizer.name"] == "sgd")))
    assert next(iter(found.shares)) == "optimizer.name"
    assert "optimizer.momentum" not in found.shares
    assert found.conditional == ["optimizer.momentum"]


@pytest.mark.parametrize(
    "table",
    [
        searched(MIN_TRIALS - 1, lambda trial: trial["model.dropout"]),
        searched(MIN_TRIALS, lambda trial: 0.5),
        searched(MIN_TRIALS, lambda trial: trial["model.dropout"], state="PRUNED"),
    ],
    ids=["few", "equal", "pruned"],
)
def test_no_shares_where_they_would_be_chance(table: SearchTable) -> None:
    assert [one.shares for one in importances(table)] == [{}]


def test_each_of_several_spaces_by_its_own_trials() -> None:
    table = searched(2 * MIN_TRIALS - 1, lambda trial: trial["model.dropout"], ("cnn3", "fast"))
    cnn3, fast = importances(table)
    assert (cnn3.trials, fast.trials) == (MIN_TRIALS, MIN_TRIALS - 1)
    assert cnn3.shares and not fast.shares
