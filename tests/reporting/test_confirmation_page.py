"""What a page says of configurations trained again with new seeds."""

from collections.abc import Sequence

from fer_ray.reporting.confirmation import confirmation_blocks, confirmation_sentences
from fer_ray.reporting.html import Charts, Table
from fer_ray.search.confirmation import Confirmed
from fer_ray.search.search_metric import OBJECTIVES

ACCURACY = OBJECTIVES["accuracy"]


def made(number: int, searched: float, values: Sequence[float], failed: int = 0) -> Confirmed:
    figures = [{"value": value, "accuracy": value, "macro_f1": value - 0.1, "error": None} for value in values]
    figures += [{"value": None, "accuracy": None, "macro_f1": None, "error": "Traceback\nit diverged"}] * failed
    rows = [
        figure
        | {"run": f"{number}-seed{seed}", "trial": number, "seed": seed, "best_epoch": 2, "epochs": 3, "seconds": 60.0}
        | {"search_value": searched, "search_accuracy": searched, "search_macro_f1": searched - 0.1}
        for seed, figure in enumerate(figures, start=1)
    ]
    return Confirmed(number, "fast", rows)


def sentences(*confirmed: Confirmed, objective: str = "accuracy") -> str:
    by_mean = sorted(confirmed, key=lambda one: -one.mean() if one.values() else 0.0)
    return " ".join(confirmation_sentences(by_mean, OBJECTIVES[objective]))


def test_the_search_was_too_optimistic_and_its_order_changed() -> None:
    text = sentences(made(7, 0.66, [0.64, 0.65, 0.63]), made(2, 0.658, [0.65, 0.66, 0.655]))
    assert "Trial 7 had 66.00% in the search and has 64.00% on average over 3 new seeds" in text
    assert (
        "the value of the search was 2 points too high. The values of both were 1.2 points too high on average." in text
    )
    assert "did not hold: it was trials 7, 2; by the means it is 2 (65.50%), 7 (64.00%)." in text
    assert "means must differ by 1.8 points to be distinct (95%); no neighbours do." in text


def test_the_search_was_right() -> None:
    text = sentences(made(7, 0.66, [0.668, 0.67, 0.669]), made(2, 0.64, [0.639, 0.641, 0.64]))
    assert "the value of the search was not too high, but 0.9 points below it." in text
    assert "The values of both were 0.5 points too low on average." in text
    assert "The order of the search held (trials 7, 2)." in text
    assert "; some neighbours do." in text


def test_figures_of_macro_f1_are_no_percentages() -> None:
    text = sentences(made(7, 0.60, [0.58, 0.59, 0.57]), made(2, 0.59, [0.57, 0.58, 0.56]), objective="macro_f1")
    assert "Trial 7 had 0.600 in the search and has 0.580" in text and "0.020 too high" in text
    assert "%" not in text.replace("(95%", "") and "point" not in text


def test_one_configuration_and_one_seed_say_no_more_than_they_can() -> None:
    text = sentences(made(7, 0.66, [0.66]))
    assert text == (
        "Trial 7 had 66.00% in the search and has 66.00% on average over 1 new seed: the value of the search was"
        " neither too high nor too low."
    )


def test_failed_runs_are_shown_and_left_out_of_the_means() -> None:
    confirmed = [made(7, 0.66, [0.64, 0.65], failed=1), made(2, 0.6, [], failed=2)]
    assert sentences(*confirmed).startswith("Trial 7 had 66.00%")
    assert sentences(*confirmed).endswith("3 runs failed and are left out.")
    assert sentences(confirmed[1]) == "2 runs failed and are left out."
    first, charts, runs = confirmation_blocks(confirmed, ACCURACY)
    assert isinstance(first, Table) and isinstance(charts, Charts) and isinstance(runs, Table)
    assert list(first.rows[0])[:7] == ["7 (fast)", "66.00%", "2", "64.00%", "65.00%", "64.50%", "0.71"]
    assert list(first.rows[1])[:4] == ["2 (fast)", "60.00%", "0", "–"]
    assert all(len(row) == len(table.columns) for table in (first, runs) for row in table.rows)
    assert list(runs.rows[0]) == ["7-seed1", "64.00%", "0.540", "2", "3", "60", ""]
    assert list(runs.rows[2])[-1] == "it diverged"
    assert confirmation_blocks([], ACCURACY) == []
