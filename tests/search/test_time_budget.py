"""What the time of a search is enough for."""

import pytest

from fer_ray.config.files import load_config
from fer_ray.search.time_budget import TimeBudget, enough_for


@pytest.mark.parametrize(
    ("seconds", "trials", "epochs", "at_once", "said"),
    [
        (
            600,
            6,
            [80.0] * 26,
            2,
            "7 of the 26 epochs of a trial, so no trial completes. To fit 6 trials:"
            " --set training.epochs=2, or --time-budget 104m.",
        ),
        (600, 6, [10.0] * 10, 2, "The time is enough for all 6 trials of 10 epochs."),
        (
            250,
            6,
            [10.0] * 10,
            2,
            "4 of 6 trials of 10 epochs, if none stops early. To fit 6 trials: --set"
            " training.epochs=8, or --time-budget 5m.",
        ),
        (
            100,
            1,
            [10.0, 20.0, 30.0, 40.0, 50.0],
            1,
            "4 of the 5 epochs of a trial, so no trial completes. To fit 1 trial: --set training.epochs=3, or",
        ),
        (
            5,
            9,
            [60.0, 60.0],
            1,
            "0 of the 2 epochs of a trial, so no trial completes. To fit 9 trials: --time-budget 18m.",
        ),
    ],
)
def test_enough_for(seconds: float, trials: int, epochs: list[float], at_once: int, said: str) -> None:
    assert said in enough_for(seconds, trials, epochs, at_once)


def test_it_is_said_once_when_all_that_run_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    """Later epochs have larger images: four of 32 pixels, three of 40, three of 48."""
    config = load_config(None, ["training.epochs=10"])
    budget = TimeBudget(300, 4, 2, 48)
    for number in range(2):
        budget.began(number, config)
    for number, epoch in ((0, 1), (0, 2), (1, 1), (1, 2), (0, 3)):
        budget.reported(number, {"epoch": epoch, "seconds": 10.0})
        said = capsys.readouterr().err
        assert ("Time budget of 5 min 00 s" in said) == ((number, epoch) == (1, 1))
        if said:
            assert "an epoch takes 15 s on average with 2 trials at once" in " ".join(said.split())
