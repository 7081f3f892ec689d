"""A search's section: what it says of few and many trials, of pruning, of failures and of values some trials lack."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_search import SECONDS, Scripted, write_search

from fer_ray.config.files import SearchSpace
from fer_ray.reporting.html import Charts, Figure, PageSection, Table
from fer_ray.reporting.search import search_section
from fer_ray.reporting.search_table import Clock, SearchedValue, read_search_table

EPOCHS = 10
DROPOUT = {"model.dropout": {"uniform": [0.0, 0.6]}}
RATE = {"optimizer.learning_rate": {"log_uniform": [0.01, 0.9]}, "optimizer.name": {"categorical": ["sgd", "adam"]}}


def space(name: str, search: dict[str, Any]) -> SearchSpace:
    return SearchSpace.model_validate({"model": {"name": name}, "training": {"epochs": EPOCHS}, "search": search})


FAST, CNN3 = space("fast", DROPOUT | RATE), space("cnn3", RATE)


def section(folder: Path) -> PageSection:
    return search_section(folder, folder)


def tables(section: PageSection) -> dict[str, list[Any]]:
    return {block.caption: list(block.rows) for block in section.blocks if isinstance(block, Table)}


def charts(section: PageSection) -> dict[str, list[str]]:
    return {
        block.caption: [one.caption for one in block.figures] for block in section.blocks if isinstance(block, Charts)
    }


def test_pruning_saved_the_epochs_that_were_not_trained(tmp_path: Path) -> None:
    script = [Scripted([0.5] * 10), Scripted([0.1], "prune"), Scripted([0.2] * 3, "prune")]
    rows = dict(tables(section(write_search(tmp_path / "s", {"fast": FAST}, script)))["Pruning"])
    assert SECONDS * (9 + 7) == 32
    assert rows["Pruned trials"] == "2 of 3 (67%)"
    assert rows["Epochs of pruned trials"] == "4 of 20 (20%)"
    assert rows["Time in epochs of all trials"] == "28 s"
    assert rows["Time saved, estimated"] == "32 s: without pruning, 1 min 00 s"


def test_an_interrupted_trial_is_shown_as_the_one_that_continues_it(tmp_path: Path) -> None:
    script = [Scripted([0.5], "lose"), Scripted([0.5, 0.6]), Scripted([], "broke")]
    shown = section(write_search(tmp_path / "s", {"fast": FAST}, script))
    assert shown.headline.startswith("2 trials (1 COMPLETE, 1 FAIL), 1 more were interrupted and resumed as these; ")
    assert [row[0] for row in tables(shown)["Trials"]] == ["1", "2"]
    assert tables(shown)["Failed trials"] == [("broke", "1", "2")]


def test_failures_that_differ_in_numbers_alone_stand_together(tmp_path: Path) -> None:
    errors = ["Traceback\nno memory for 20 MiB", "the loss is not finite", "Traceback\nno memory for 3.5 MiB"]
    script = [Scripted([], error) for error in errors]
    shown = section(write_search(tmp_path / "s", {"fast": FAST}, script))
    assert shown.headline == "3 trials (3 FAIL); none is complete."
    assert tables(shown)["Failed trials"] == [
        ("no memory for 20 MiB", "2", "0, 2"),
        ("the loss is not finite", "1", "1"),
    ]
    assert "Pruning" not in tables(shown)


def test_a_search_without_a_value_has_no_charts_of_it(tmp_path: Path) -> None:
    why = "The actor died.\n\tclass_name: x\nThe actor is dead because " + 30 * "of many causes "
    shown = section(write_search(tmp_path / "s", {"fast": FAST}, [Scripted([], why), Scripted([], 30 * "long words ")]))
    assert set(charts(shown)) == {"What mattered"}
    died, long = (row[-1] for row in tables(shown)["Trials"])
    assert died == "The actor died." and long.endswith("words …") and len(long) <= 80


def test_a_search_whose_trials_were_all_interrupted(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "s", {"fast": FAST}, [Scripted([0.7]), Scripted([0.5])])
    file = folder / "trials.parquet"
    table = pq.read_table(file)
    both = pa.array([True, True])
    pq.write_table(table.set_column(table.column_names.index("interrupted"), "interrupted", both), file)
    shown = section(folder)
    assert shown.headline == "No trials, 2 interrupted, to be resumed; none is complete."
    assert "Trials" not in tables(shown)


def test_seven_values_stand_in_two_figures_of_much_the_same_width(tmp_path: Path) -> None:
    names = ["rotation", "zoom", "shift", "flip", "contrast", "brightness"]
    defaults = {name: getattr(FAST.augment, name) for name in names}
    searched = DROPOUT | {f"augment.{name}": {"uniform": [low, low + 0.1]} for name, low in defaults.items()}
    folder = write_search(tmp_path / "s", {"fast": space("fast", searched)}, [Scripted([0.5]), Scripted([0.6])])
    captions = [block.caption for block in section(folder).blocks if isinstance(block, Figure)]
    assert [caption.split(". ")[0] for caption in captions] == ["Values 1 to 4 of 7", "Values 5 to 7 of 7"]


def test_trials_stand_best_first_and_values_of_other_spaces_are_left_empty(tmp_path: Path) -> None:
    script = [Scripted([0.5]), Scripted([0.6]), Scripted([0.9], "prune"), Scripted([], "broke"), Scripted([0.7])]
    folder = write_search(tmp_path / "s", {"fast": FAST, "cnn3": CNN3}, script)
    shown = section(folder)
    assert [row[0] for row in tables(shown)["Trials"]] == ["4", "1", "0", "2", "3"]
    assert tables(shown)["By space"][0][:3] == ("fast", "70.00%", "4")
    stored = pq.read_table(folder / "trials.parquet")
    assert stored["space"].to_pylist()[:2] == ["fast", "cnn3"]
    dropouts = stored["model.dropout"].to_pylist()
    assert dropouts[0] == FAST.model.dropout and dropouts[1] is None
    assert {value.path: value.kind for value in read_search_table(folder).searched} == {
        "model.dropout": "uniform",
        "optimizer.learning_rate": "log_uniform",
        "optimizer.name": "categorical",
    }
    assert all(
        start <= end for start, end in zip(stored["started"].to_pylist(), stored["ended"].to_pylist(), strict=True)
    )
    (parallel,) = [block for block in shown.blocks if isinstance(block, Figure)]
    assert "A line for each of 3 complete trials through its values of space," in parallel.alt


@pytest.mark.parametrize("count", [1, 3, 60])
def test_charts_are_there_as_far_as_the_trials_go(tmp_path: Path, count: int) -> None:
    folder = write_search(tmp_path / "s", {"fast": FAST}, [Scripted([0.5 + 0.001 * i]) for i in range(count)])
    shown = charts(section(folder))
    assert [caption.split(";")[0] for caption in shown["History"]] == [
        "Best so far by time",
        "Validation accuracy by trial",
    ]
    slices = set(shown.get("Validation accuracy by each value", []))
    assert slices <= {"model.dropout", "optimizer.learning_rate", "optimizer.name"}
    assert ("model.dropout" in slices) == (count > 1)
    assert len(shown["What mattered"]) == (count >= 20)


def test_two_objectives_show_the_front(tmp_path: Path) -> None:
    """Trial 1 is beaten by trial 0 in both; 0 and 2 are each best in one."""
    folder = write_search(tmp_path / "s", {"fast": FAST}, [Scripted([0.7]), Scripted([0.5]), Scripted([0.6])])
    file = folder / "trials.parquet"
    table = pq.read_table(file).drop_columns(["images_per_s", "pareto"])
    table = table.append_column("images_per_s", pa.array([900.0, 800.0, 1400.0]))
    table = table.append_column("pareto", pa.array([True, False, True]))
    pq.write_table(table.replace_schema_metadata({"objectives": "accuracy,images_per_s"}), file)
    shown = section(folder)
    assert shown.headline.startswith("3 trials (3 COMPLETE), 2 of them on the Pareto front; the best is trial 0")
    assert tables(shown)["Trials of the front"] == [("0", "70.00%", "900", "fast"), ("2", "60.00%", "1,400", "fast")]
    assert charts(shown)["Pareto front"] == [
        "The 2 ringed trials are the front: no other is better in one objective and as good in the rest."
    ]


def test_three_objectives_join_nothing_and_name_what_is_not_shown(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "s", {"fast": FAST}, [Scripted([0.7]), Scripted([0.5])])
    file = folder / "trials.parquet"
    table = pq.read_table(file).drop_columns(["images_per_s", "pareto"])
    table = table.append_column("images_per_s", pa.array([800.0, 900.0]))
    table = table.append_column("pareto", pa.array([True, True]))
    pq.write_table(table.replace_schema_metadata({"objectives": "accuracy,macro_f1,images_per_s"}), file)
    (caption,) = charts(section(folder))["Pareto front"]
    assert caption.endswith("as good in the rest. The chart doesn't show images/s predicted.")


def test_time_leaves_out_pauses_and_trials_of_a_dead_driver() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def trial(number: int, start: float, end: float, seconds: float | None = 1.0) -> dict[str, Any]:
        moments = {"started": noon + timedelta(seconds=start), "ended": noon + timedelta(seconds=end)}
        return {"number": number, "seconds": seconds, **moments}

    trials = [trial(0, 0, 10), trial(1, 5, 20), trial(2, 1020, 1030), trial(3, 15, 1020, seconds=None)]
    clock = Clock(trials)
    assert (clock.seconds, clock.pause) == (30, 1000)
    assert clock.at_once == 35 / 30
    assert [(second, one["number"]) for second, one in clock.ended(trials)] == [(10, 0), (20, 1), (30, 2)]
    assert clock.at(noon + timedelta(seconds=500)) == 20
    assert (Clock([]).seconds, Clock([]).pause, Clock([]).at_once) == (0, 0, 0)


def test_a_name_is_told_by_its_section() -> None:
    assert SearchedValue("optimizer.name", "categorical").label == "optimizer"
    assert SearchedValue("loss.class_weight_power", "uniform").label == "class weight power"
