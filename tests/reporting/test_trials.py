"""A search's section: what it says of few and many trials, of pruning, of failures and of values some trials lack."""

from pathlib import Path
from typing import Any

import pytest
from made_up_search import SECONDS, Scripted, write_search

from fer_ray.config.files import SearchSpace
from fer_ray.errors import UsageError
from fer_ray.reporting.html import Charts, PageSection, Table
from fer_ray.reporting.search import MIN_TRIALS, importances, read_search_section
from fer_ray.reporting.trial_charts import SearchResults, label
from fer_ray.search.folder import SearchFolder
from fer_ray.search.study import Study

EPOCHS = 10
DROPOUT = {"model.dropout": {"uniform": [0.0, 0.6]}}
RATE = {"optimizer.learning_rate": {"log_uniform": [0.01, 0.9]}, "optimizer.name": {"categorical": ["sgd", "adam"]}}


def space(name: str, search: dict[str, Any]) -> SearchSpace:
    return SearchSpace.model_validate({"model": {"name": name}, "training": {"epochs": EPOCHS}, "search": search})


FAST, CNN3 = space("fast", DROPOUT | RATE), space("cnn3", RATE)


def section(folder: Path, spaces: dict[str, SearchSpace], script: list[Scripted], *objectives: str) -> PageSection:
    write_search(folder, spaces, script, objectives or ("accuracy",))
    return read_search_section(folder, folder)


def tables(section: PageSection) -> dict[str, list[Any]]:
    return {block.caption: list(block.rows) for block in section.blocks if isinstance(block, Table)}


def charts(section: PageSection) -> dict[str, list[str]]:
    return {
        block.caption: [one.caption for one in block.figures] for block in section.blocks if isinstance(block, Charts)
    }


def test_pruning_saved_the_epochs_that_were_not_trained(tmp_path: Path) -> None:
    script = [Scripted([0.5] * 10), Scripted([0.1], "prune"), Scripted([0.2] * 3, "prune")]
    rows = dict(tables(section(tmp_path / "s", {"fast": FAST}, script))["Pruning"])
    assert SECONDS * (9 + 7) == 32
    assert rows["Pruned trials"] == "2 of 3"
    assert rows["Time in epochs of all trials"] == "28 s"
    assert rows["Time saved, estimated"] == "32 s: without pruning, 1 min 00 s"


def test_an_interrupted_trial_is_shown_as_the_one_that_continues_it(tmp_path: Path) -> None:
    script = [Scripted([0.5], "interrupt"), Scripted([0.5, 0.6]), Scripted([], "broke")]
    shown = section(tmp_path / "s", {"fast": FAST}, script)
    assert shown.headline.startswith("2 trials (1 COMPLETE, 1 FAIL), 1 more were interrupted and resumed as these; ")
    assert [row[0] for row in tables(shown)["Trials"]] == ["1", "2"]
    assert tables(shown)["Trials"][1][-1] == "broke"


def test_a_search_whose_trials_all_fail_says_why(tmp_path: Path) -> None:
    script = [Scripted([], "Traceback\nno memory for 20 MiB"), Scripted([], 90 * "long words ")]
    shown = section(tmp_path / "s", {"fast": FAST}, script)
    assert shown.headline == "2 trials (2 FAIL); none is complete."
    errors = [row[-1] for row in tables(shown)["Trials"]]
    assert errors[0] == "no memory for 20 MiB" and errors[1].endswith("words …")
    assert set(charts(shown)) == {"What mattered"} and "Pruning" not in tables(shown)
    with pytest.raises(UsageError, match=r"none of 2 trials is complete. The first error: no memory for 20 MiB\."):
        SearchFolder(tmp_path / "s").finish(Study.read("search", study_url(tmp_path / "s")))


def test_a_search_whose_trials_were_all_interrupted(tmp_path: Path) -> None:
    shown = section(tmp_path / "s", {"fast": FAST}, [Scripted([0.7, 0.6], "interrupt")])
    assert shown.headline == (
        "No trials, 1 interrupted, to be resumed; none is complete. The best epoch is in trial 0, fast, with 70.00%"
        " validation accuracy. This trial was stopped after epoch 2 of 10."
    )
    assert "Trials" not in tables(shown)


def test_best_trials_come_first_and_values_of_other_spaces_are_empty(tmp_path: Path) -> None:
    script = [Scripted([0.5]), Scripted([0.6]), Scripted([0.9], "prune"), Scripted([], "broke"), Scripted([0.7])]
    shown = section(tmp_path / "s", {"fast": FAST, "cnn3": CNN3}, script)
    assert [row[0] for row in tables(shown)["Trials"]] == ["4", "1", "0", "2", "3"]
    dropouts = {row[0]: row[5] for row in tables(shown)["Trials"]}
    assert (dropouts["0"], dropouts["1"]) == ("0.1", "–")
    by_space = {row[0]: row for row in tables(shown)["By space"]}
    assert by_space["cnn3"][1] in ("60.00%", "70.00%") and len(by_space) == 2


@pytest.mark.parametrize("count", [1, 3, MIN_TRIALS])
def test_charts_need_enough_trials(tmp_path: Path, count: int) -> None:
    shown = charts(section(tmp_path / "s", {"fast": FAST}, [Scripted([0.5 + 0.001 * i]) for i in range(count)]))
    assert len(shown["History"]) == 1
    slices = set(shown.get("Validation accuracy by each value", []))
    assert slices <= {"model.dropout", "optimizer.learning_rate", "optimizer.name"}
    assert ("model.dropout" in slices) == (count > 1)
    assert len(shown["What mattered"]) == (count >= MIN_TRIALS)


def test_importances_are_those_of_each_space(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = write_search(folder, {"fast": FAST, "cnn3": CNN3}, [])
    for _ in range(2 * MIN_TRIALS + 8):
        candidate = study.ask()
        accuracy = 0.5 + (candidate.config.optimizer.name == "sgd") / 10 if candidate.space == "cnn3" else 0.5
        accuracy -= candidate.config.model.dropout * (candidate.space == "fast")
        metrics = {"epoch": 1.0, "validation_accuracy": accuracy, "validation_macro_f1": 0.5, "seconds": 1.0}
        study.report(candidate.number, metrics)
        study.complete(candidate.number)
    results = SearchResults(Study.read("search", study_url(folder)))
    found = {space: importances(results, space) for space in results.spaces}
    enough = {space for space, shares in found.items() if shares}
    assert enough and all(
        next(iter(found[space])) == {"fast": "model.dropout", "cnn3": "optimizer.name"}[space] for space in enough
    )


def study_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def test_two_objectives_show_the_front(tmp_path: Path) -> None:
    """Trial 0 beats trial 1 in both; 0 and 2 are each best in one."""
    script = [Scripted([0.7], images_per_s=900), Scripted([0.5], images_per_s=800), Scripted([0.6], images_per_s=1400)]
    shown = section(tmp_path / "s", {"fast": FAST}, script, "accuracy", "images_per_s")
    assert shown.headline.startswith("3 trials (3 COMPLETE), 2 of them on the Pareto front; the best is trial 0")
    assert tables(shown)["Trials of the front"] == [("0", "70.00%", "900", "fast"), ("2", "60.00%", "1,400", "fast")]
    assert charts(shown)["Pareto front"] == [
        "The 2 ringed trials are the front: no other is better in one objective and as good in the rest."
    ]


def test_a_chart_names_the_third_objective_that_it_does_not_show(tmp_path: Path) -> None:
    script = [Scripted([0.7], images_per_s=800), Scripted([0.5], images_per_s=900)]
    shown = section(tmp_path / "s", {"fast": FAST}, script, "accuracy", "macro_f1", "images_per_s")
    assert charts(shown)["Pareto front"][0].endswith("The chart doesn't show images/s predicted.")


def test_a_name_is_shown_by_its_section() -> None:
    assert label("optimizer.name") == "optimizer"
    assert label("loss.class_weight_power") == "class weight power"
