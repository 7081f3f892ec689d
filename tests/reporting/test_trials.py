"""A search's section: what it says of few and many trials, of pruning, of failures and of values some trials lack."""

from pathlib import Path

import pytest
from made_up_search import Scripted, write_search

from fer_ray.config.files import SearchSpace
from fer_ray.reporting.html import Charts, PageSection, Table
from fer_ray.reporting.search import MIN_TRIALS, importances, search_section
from fer_ray.reporting.trial_charts import SearchResults

RATE = {"optimizer.learning_rate": {"log_uniform": [0.01, 0.9]}, "optimizer.name": {"categorical": ["sgd", "adam"]}}
SEARCHES = {"fast": {"model.dropout": {"uniform": [0.0, 0.6]}} | RATE, "cnn3": RATE}
SPACES = {
    name: SearchSpace.model_validate({"model": {"name": name}, "training": {"epochs": 10}, "search": search})
    for name, search in SEARCHES.items()
}
FAST = {"fast": SPACES["fast"]}


def section(spaces: dict[str, SearchSpace], script: list[Scripted], *objectives: str) -> PageSection:
    return search_section(Path("nowhere"), "s", write_search(None, spaces, script, *objectives), [])


def tables(section: PageSection) -> dict[str, Table]:
    return {block.caption: block for block in section.blocks if isinstance(block, Table)}


def charts(section: PageSection) -> dict[str, list[str]]:
    return {
        block.caption: [one.caption for one in block.figures] for block in section.blocks if isinstance(block, Charts)
    }


def test_a_search_of_two_spaces_with_trials_of_every_kind() -> None:
    script = [Scripted([0.5] * 10), Scripted([0.6]), Scripted([0.9], "prune"), Scripted([0.2] * 3, "prune")]
    script += [Scripted([], "Traceback\nno memory for 20 MiB"), Scripted([0.5], "interrupt"), Scripted([0.5, 0.7])]
    shown = section(SPACES, script)
    counts = "6 trials (3 COMPLETE, 2 PRUNED, 1 FAIL), 1 more were interrupted and resumed as these"
    assert shown.headline.startswith(f"{counts}; the best is trial 6, ")
    trials = tables(shown)["Trials"]
    assert [row[0] for row in trials.rows] == ["6", "1", "0", "2", "3", "4"]
    assert trials.rows[-1][-1] == "no memory for 20 MiB"
    dropouts = {row[0]: row[5] for row in trials.rows}
    assert (dropouts["0"], dropouts["1"]) == ("0.1", "–")  # the second space has none
    by_space = {row[0]: row for row in tables(shown)["By space"].rows}
    assert by_space["cnn3"][1] in ("60.00%", "70.00%") and len(by_space) == 2
    assert len(charts(shown)["History"]) == 1
    assert "optimizer.learning_rate" in charts(shown)["Validation accuracy by each value"]


@pytest.mark.parametrize(
    ("script", "headline"),
    [
        ([Scripted([], "broke"), Scripted([], "broke")], "2 trials (2 FAIL); none is complete"),
        ([Scripted([0.7, 0.6], "interrupt")], "The best epoch is in trial 0, fast, with 70.00% validation accuracy"),
    ],
)
def test_a_search_without_a_complete_trial(script: list[Scripted], headline: str) -> None:
    shown = section(FAST, script)
    assert headline in shown.headline
    assert not {"History", "Validation accuracy by each value"} & charts(shown).keys()


def test_importances_are_those_of_each_space_that_has_enough_trials() -> None:
    assert charts(section(FAST, [Scripted([0.5])])) == {
        "History": ["Validation accuracy by trial; hollow marks are pruned trials"],
        "What mattered": [],
    }
    study = write_search(None, SPACES, [])
    for _ in range(2 * MIN_TRIALS - 1):
        candidate = study.ask()
        accuracy = 0.5 + (candidate.config.optimizer.name == "sgd") / 10 if candidate.space == "cnn3" else 0.5
        accuracy -= candidate.config.model.dropout * (candidate.space == "fast")
        metrics = {"epoch": 1.0, "validation_accuracy": accuracy, "validation_macro_f1": 0.5, "seconds": 1.0}
        study.report(candidate.number, metrics)
        study.complete(candidate.number)
    results = SearchResults(study)
    counts = {space: sum(trial.space == space for trial in results.complete) for space in results.spaces}
    enough = [space for space in results.spaces if counts[space] >= MIN_TRIALS]
    first = {space: next(iter(importances(results, space))) for space in enough}
    assert first and first.items() <= {"fast": "model.dropout", "cnn3": "optimizer.name"}.items()
    assert len(charts(search_section(Path("nowhere"), "s", study, []))["What mattered"]) == len(enough)


def test_several_objectives_show_the_front() -> None:
    """Trial 0 beats trial 1 in both; 0 and 2 are each best in one."""
    script = [Scripted([0.7], images_per_s=900), Scripted([0.5], images_per_s=800), Scripted([0.6], images_per_s=1400)]
    shown = section(FAST, script, "accuracy", "images_per_s")
    front = [tuple(row[:3]) for row in tables(shown)["Trials of the front"].rows]
    assert front == [("0", "70.00%", "900"), ("2", "60.00%", "1,400")]
    (caption,) = charts(shown)["Pareto front"]
    assert "The 2 ringed trials are the front" in caption
    (caption,) = charts(section(FAST, script, "accuracy", "images_per_s", "macro_f1"))["Pareto front"]
    assert "doesn't show validation macro-F1" in caption
