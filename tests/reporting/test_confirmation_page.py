"""What a page says of configurations trained again with new seeds."""

from collections.abc import Sequence

from test_trials import FAST

from fer_ray.reporting.confirmation import confirmation_sentences, confirmation_table
from fer_ray.search.confirmation import Confirmed
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.trial_records import TrialRecord

ACCURACY = OBJECTIVES["accuracy"]


def record(number: int, value: float | None, folder: str) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="FAIL" if value is None else "COMPLETE",
        values=None if value is None else (value,),
        accuracy=value,
        macro_f1=None if value is None else value - 0.1,
        images_per_s=None,
        space="fast",
        params={},
        config=FAST.defaults,
        by_epoch=[] if value is None else [value / 2, value, value / 2],
        seconds=60.0,
        error="Traceback\nit diverged" if value is None else None,
        started=None,
        ended=None,
        folder=folder,
    )


def made(number: int, searched: float, values: Sequence[float], failed: int = 0) -> Confirmed:
    runs = [
        record(seed, value, f"{number}-seed{seed}") for seed, value in enumerate([*values, *[None] * failed], start=1)
    ]
    return Confirmed(record(number, searched, str(number)), runs)


def made_f1(number: int, searched: float, values: Sequence[float]) -> Confirmed:
    return made(number, searched + 0.1, [value + 0.1 for value in values])


def sentences(*confirmed: Confirmed, objective: str = "accuracy") -> str:
    by_mean = sorted(confirmed, key=lambda one: -one.mean(objective) if one.values(objective) else 0.0)
    return " ".join(confirmation_sentences(by_mean, OBJECTIVES[objective]))


def test_the_search_was_too_optimistic_and_its_order_changed() -> None:
    text = sentences(made(7, 0.66, [0.64, 0.65, 0.63]), made(2, 0.658, [0.65, 0.66, 0.655]))
    assert "Trial 7 had 66.00% in the search and has 64.00% on average over 3 new seeds" in text
    assert "the value of the search was 2 points too high." in text
    assert "did not hold: it was trials 7, 2; by the means it is 2 (65.50%), 7 (64.00%)." in text
    assert "means must differ by 1.8 points to be distinct (95%); no neighbours do." in text


def test_the_search_was_right() -> None:
    text = sentences(made(7, 0.66, [0.668, 0.67, 0.669]), made(2, 0.64, [0.639, 0.641, 0.64]))
    assert "the value of the search was 0.9 points too low." in text
    assert "The order of the search held (trials 7, 2)." in text
    assert "; some neighbours do." in text


def test_figures_of_macro_f1_are_no_percentages() -> None:
    f1 = made_f1(7, 0.60, [0.58, 0.59, 0.57]), made_f1(2, 0.59, [0.57, 0.58, 0.56])
    text = sentences(*f1, objective="macro_f1")
    assert "Trial 7 had 0.600 in the search and has 0.580" in text and "0.020 too high" in text
    assert "%" not in text.replace("(95%", "") and "point" not in text


def test_one_configuration_and_one_seed_say_no_more_than_they_can() -> None:
    text = sentences(made(7, 0.66, [0.66]))
    assert text == (
        "Trial 7 had 66.00% in the search and has 66.00% on average over 1 new seed: the value of the search was right."
    )


def test_failed_runs_are_shown_and_left_out_of_the_means() -> None:
    confirmed = [made(7, 0.66, [0.64, 0.65], failed=1), made(2, 0.6, [], failed=2)]
    assert sentences(*confirmed).startswith("Trial 7 had 66.00%")
    assert sentences(*confirmed).endswith("3 runs failed and are left out.")
    assert sentences(confirmed[1]) == "2 runs failed and are left out."
    table = confirmation_table(confirmed, ACCURACY)
    assert list(table.rows[0])[:7] == ["7 (fast)", "66.00%", "2", "64.00%", "65.00%", "64.50%", "0.71"]
    assert list(table.rows[1])[:4] == ["2 (fast)", "60.00%", "0", "–"]
    assert all(len(row) == len(table.columns) for row in table.rows)
