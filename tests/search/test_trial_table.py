"""The running trials of a search: a line each, in a terminal of any width and in a log."""

import io

import pytest
from made_up_search import drawn_study
from rich.console import Console

from fer_ray.search.on_ray.run_trials import TrialTable
from fer_ray.search.study import Study


def shown(trials: TrialTable, width: int, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(trials)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def study() -> Study:
    """One trial in its fourth epoch of ten, 60 s each, and one that has just begun."""
    study = drawn_study({"fast": 10, "a-space-with-a-rather-long-name": 3})
    for epoch, accuracy in enumerate([0.3, 0.5, 0.6, 0.55], start=1):
        study.report(0, {"epoch": float(epoch), "validation_accuracy": accuracy, "seconds": 60.0})
    return study


def test_a_line_a_trial(study: Study) -> None:
    trials = TrialTable(study)
    first, second = trials.lines()
    assert first.startswith("trial 0: epoch 4/10, 55.00%, best 60.00%, ") and first.endswith(" left, fast")
    assert second == "trial 1: epoch 0/3, a-space-with-a-rather-long-name"
    for width in (40, 200):
        lines = shown(trials, width).splitlines()
        assert len(lines) == 2 and max(map(len, lines)) <= width and "4/10, 55.00%" in lines[0]
    study.prune(0)
    assert trials.lines() == [second]


def test_more_trials_than_fit_are_counted() -> None:
    trials = TrialTable(drawn_study({"fast": 10}, 102))
    assert shown(trials, 80, height=20).splitlines()[-1].strip() == "and 90 more"
    assert trials.lines()[-1] == "and 86 more"
    assert shown(TrialTable(drawn_study({"fast": 10}, 0)), 80) == ""
