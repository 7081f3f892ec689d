"""Schedulers over the share of a trial's epochs: the weak stop, the strong finish, and earlier calls count."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from fer_ray.config.schema import Config, TrainingConfig
from fer_ray.search.on_ray.schedulers import make_scheduler
from fer_ray.search.trial_records import TrialRecord

STRONG, WEAK = [0.5, 0.55, 0.6, 0.62, 0.64, 0.65, 0.66, 0.66, 0.67], [0.1] * 9
STOPPING = ["asha", "hyperband", "median"]


class FakeTrial:
    def __init__(self, number: int):
        self.trial_id, self.config = f"t{number}", {"number": number}


def epochs_of(scheduler: Any, number: int, values: list[float]) -> int:
    """Run a trial and return the epochs it came to."""
    trial, controller = FakeTrial(number), SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    scheduler.on_trial_add(controller, trial)
    for epoch, value in enumerate(values, start=1):
        result = {"progress": 100 * epoch / len(values), "value": value, "best": max(values[:epoch]), "previous": False}
        decision = scheduler.on_trial_result(controller, trial, result)
        if decision == TrialScheduler.STOP:
            return epoch
        assert decision == TrialScheduler.CONTINUE  # never PAUSE
    scheduler.on_trial_complete(controller, trial, result)
    return len(values)


def previous(number: int, values: list[float], state: str = "COMPLETE") -> TrialRecord:
    config = Config(training=TrainingConfig(epochs=9))
    best = max(values)
    return TrialRecord(number, state, (best,), best, best, None, "s", {}, config, values, 1.0, None, None, None)


@pytest.mark.parametrize("name", STOPPING)
def test_the_weak_stop_and_the_strong_finish(name: str) -> None:
    scheduler = make_scheduler(name, [])
    assert [epochs_of(scheduler, number, STRONG) for number in range(17)] == [9] * 17
    assert epochs_of(scheduler, 17, WEAK) < 9
    assert epochs_of(scheduler, 34, [value + 0.01 for value in STRONG]) == 9


@pytest.mark.parametrize("name", STOPPING)
def test_trials_of_earlier_calls_count(name: str) -> None:
    records = [previous(number, [value + number / 1000 for value in STRONG]) for number in range(17)]
    scheduler = make_scheduler(name, [*records, previous(99, WEAK, "FAIL")])
    assert epochs_of(scheduler, 17, WEAK) == 1
    # Ones that an other scheduler let run on are taken whole, however weak they were.
    assert epochs_of(make_scheduler(name, [*records, previous(17, WEAK)]), 34, [value + 0.1 for value in STRONG]) == 9


@pytest.mark.parametrize("name", STOPPING)
def test_shares_of_epochs_compare_trials_of_several_lengths(name: str) -> None:
    scheduler = make_scheduler(name, [previous(number, STRONG) for number in range(17)])
    assert epochs_of(scheduler, 17, [0.1] * 90) < 90
    assert epochs_of(scheduler, 34, [0.7]) == 1  # its last epoch is its first


def test_hyperband_lets_some_come_farther() -> None:
    records = [previous(number, STRONG) for number in range(17)]
    reached = [epochs_of(make_scheduler("hyperband", records), number, WEAK) for number in range(17)]
    assert [reached.count(epochs) for epochs in (1, 3, 9)] == [9, 5, 3]
    assert reached == [epochs_of(make_scheduler("hyperband", records), number + 17, WEAK) for number in range(17)]


def test_none_stops_nothing() -> None:
    scheduler = make_scheduler("none", [previous(number, STRONG) for number in range(17)])
    assert epochs_of(scheduler, 17, WEAK) == 9


@pytest.mark.parametrize("name", STOPPING)
def test_a_trial_that_failed_is_left_to_fail(name: str) -> None:
    scheduler: Any = make_scheduler(name, [previous(number, STRONG) for number in range(17)])
    trial: Any = FakeTrial(17)
    scheduler.on_trial_add(None, trial)
    result = {"error": "it broke", "value": -1.0, "best": -1.0, "progress": 0.0}
    assert scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", STOPPING)
def test_epochs_of_before_an_interruption_are_not_judged_again(name: str) -> None:
    scheduler = make_scheduler(name, [previous(number, STRONG) for number in range(17)])
    trial, controller = FakeTrial(17), SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    scheduler.on_trial_add(controller, trial)
    for epoch in (1, 2, 3):
        result = {"progress": 100 * epoch / 9, "value": 0.1, "best": 0.1, "previous": epoch < 3}
        decision = scheduler.on_trial_result(controller, trial, result)
        assert (decision == TrialScheduler.STOP) == (epoch == 3)


@pytest.mark.parametrize("name", STOPPING)
def test_trials_that_failed_are_compared_with_nobody(name: str) -> None:
    scheduler = make_scheduler(name, [])
    controller = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    for number in range(17):
        trial = FakeTrial(number)
        scheduler.on_trial_add(controller, trial)
        result = {"progress": 50.0, "value": 0.9, "best": 0.9, "previous": False}
        scheduler.on_trial_result(controller, trial, result)
        scheduler.on_trial_error(controller, trial)
    assert epochs_of(scheduler, 17, WEAK) == 9
