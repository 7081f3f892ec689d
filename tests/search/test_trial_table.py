"""The running trials of a search: a line each, in a terminal of any width and in a log."""

import io

import pytest
from rich.console import Console

from fer_ray.console import progress
from fer_ray.console.progress import ProgressBar
from fer_ray.search.trial_table import TrialTable


def shown(trials: TrialTable, width: int, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(trials)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def trials() -> TrialTable:
    """One trial in its fourth epoch of ten, 60 s each, and one that has just begun."""
    trials = TrialTable()
    trials.began(7, "fast", 10)
    trials.began(8, "a-space-with-a-rather-long-name", 3)
    for epoch, accuracy in enumerate([0.3, 0.5, 0.6, 0.55], start=1):
        trials.reported(7, {"epoch": float(epoch), "validation_accuracy": accuracy, "seconds": 60.0})
    return trials


def test_a_line_a_trial(trials: TrialTable) -> None:
    first, second = trials.lines()
    assert first.startswith("trial 7: epoch 4/10, 55.00%, best 60.00%, ") and first.endswith(" left, fast")
    assert second == "trial 8: epoch 0/3, a-space-with-a-rather-long-name"
    for width in (40, 200):
        lines = shown(trials, width).splitlines()
        assert len(lines) == 2 and max(map(len, lines)) <= width and "4/10, 55.00%" in lines[0]
    trials.ended(7)
    assert trials.lines() == [second]


def test_more_trials_than_fit_are_counted(trials: TrialTable) -> None:
    for number in range(100, 200):
        trials.began(number, "fast", 10)
    assert shown(trials, 80, height=20).splitlines()[-1].strip() == "and 90 more"
    assert trials.lines()[-1] == "and 86 more"
    assert shown(TrialTable(), 80) == ""


def test_a_log_has_them_once_a_minute_and_not_at_the_end(
    trials: TrialTable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with ProgressBar("searching", 9, "trials", details=trials) as bar:
        bar.touch()
        assert capsys.readouterr().err == ""
        now += 61
        bar.touch()
        assert capsys.readouterr().err.splitlines()[1].startswith("  trial 7: epoch 4/10")
        bar.advance(1)
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "searching: 1/9 trials, 1.0 trials/min\n"
