"""The tune stage: the study, its files, resuming, new seeds, and calls that are refused."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from prometheus_figures import scraped, wait_for
from ray import cloudpickle
from scripted_search import SPACE, Search

from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.inference.checkpoint import load_checkpoint
from fer_ray.inference.predictor import Predictor
from fer_ray.search.on_ray.trial_listener import TrialListener
from fer_ray.tune import TuneResult, tune

pytestmark = pytest.mark.usefixtures("ray_cluster")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "model.dropout": FloatDistribution(0.2, 0.7),
    "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
}


@pytest.fixture
def scripted(tiny_dataset: PreparedDataset, tmp_path: Path) -> Search:
    return Search(tiny_dataset, tmp_path)


def diverge() -> None:
    raise UsageError("the run diverged")


def die() -> None:
    os._exit(1)


def bug() -> None:
    raise ValueError("a bug")


def run_out_of_memory() -> None:
    raise MemoryError("Unable to allocate 3.2 GiB")


TRIALS, FAILURES = ("ray_fer_ray_trials_total", "state"), ("ray_fer_ray_failures_total", "stage", "kind")
IMAGES = ("ray_fer_ray_images_total", "stage")


@pytest.fixture(scope="module")
def ended(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Search, TuneResult]:
    """One search with every end that a trial can have; trials whose process dies restart once."""
    made = Search(tiny_dataset, tmp_path_factory.mktemp("ended"))
    lost_once, lost_twice = [[0.45, 0.6, die], [0.5]], [[0.4, die], [die]]
    script = [[0.2, 0.5, 0.4], [0.1, 0.6, 0.6], [0.3, diverge], [bug], *lost_twice, *lost_once, [run_out_of_memory]]
    before = [scraped(*names) for names in (TRIALS, FAILURES, IMAGES)]
    result = made(*script, trials=7, loggers=["tensorboard"])
    wait_for(lambda: scraped(*TRIALS) - before[0], {"COMPLETE": 2, "PRUNED": 1, "FAIL": 4})
    wait_for(lambda: scraped(*FAILURES) - before[1], {("tune", "error"): 3, ("tune", "lost"): 3})
    made.images = (scraped(*IMAGES) - before[2])["tune"]
    return made, result


@pytest.fixture
def copied(ended: tuple[Search, TuneResult], scripted: Search) -> Search:
    """The same search in a folder of its own."""
    shutil.copytree(ended[0].run, scripted.run)
    return scripted


def test_the_study_holds_what_the_trials_reported(ended: tuple[Search, TuneResult]) -> None:
    made, result = ended
    trials = made.study().trials
    assert made.states() == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "COMPLETE", "FAIL"]
    by_epoch = [trial.user_attrs.get("by_epoch", []) for trial in trials]
    assert by_epoch == [[0.2, 0.5, 0.4], [0.1], [0.3], [], [0.4], [0.45, 0.6, 0.5], []]
    assert [trial.value for trial in trials] == [0.5, 0.1, None, None, None, 0.6, None]
    assert list(trials[0].intermediate_values.values()) == [0.2, 0.5, 0.5]  # the best so far, by which trials compete
    assert trials[0].params == {"model.dropout": 0.5, "optimizer.learning_rate": 0.001}
    errors = [trial.user_attrs.get("error", "") for trial in trials]
    assert errors[2:4] == ["the run diverged", "ValueError: a bug"]
    assert errors[4].startswith("its process or node was lost") and "training.max_failures = 1" in errors[4]
    assert errors[6].startswith("out of memory: Unable to allocate 3.2 GiB. Lower training.batch_size")
    assert (trials[5].user_attrs["macro_f1"], trials[5].user_attrs["seconds"]) == (0.3, 3)
    assert (result.best.number, result.best.best_epoch) == (5, 2)


def test_the_folder_holds_the_best_weights_and_a_row_a_trial(ended: tuple[Search, TuneResult]) -> None:
    made, result = ended
    checkpoint = load_checkpoint(result.checkpoint)
    assert (checkpoint.info.metrics["validation_accuracy"], checkpoint.info.epoch) == (0.6, 2)
    assert load_config(result.config_file) == checkpoint.info.config == result.best.config
    files = {"study.db", "study.json", "trials.parquet", "best.yaml", "report.html", "provenance.json", "best", ".lock"}
    assert {path.name for path in made.run.iterdir()} == files | {"tensorboard"}
    table = pq.read_table(made.run / "trials.parquet").to_pydict()
    assert table["state"] == made.states()
    assert table["epochs"] == [3, 1, 1, 0, 1, 3, 0] and table["best_epoch"] == [2, 1, 1, None, 1, 2, None]
    assert table["model.dropout"] == [trial.params["model.dropout"] for trial in made.study().trials]
    for number in "0", "5":  # a run of TensorBoard for each trial
        files_of_run = (made.run / "tensorboard" / number).glob("events*")  # a restarted trial has two
        events = b"".join(file.read_bytes() for file in files_of_run)
        assert b"ray/tune/validation_accuracy" in events and b"model.dropout" in events


def test_prometheus_finds_what_the_search_has_done(ended: tuple[Search, TuneResult]) -> None:
    assert ended[0].images in {570 * 9, 570 * 10, 570 * 11}  # the epoch before a death may not have been heard
    assert scraped("ray_fer_ray_best_value", "objective") == {"accuracy": 0.6}
    assert sum(scraped("ray_fer_ray_trials_running").values()) == 0


def test_confirm_trains_the_best_with_new_seeds(copied: Search) -> None:
    """Ctrl-C within the runs: the next call trains what is left, from the last epoch on."""
    driver = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        press = [0.6, lambda: os.kill(driver, signal.SIGINT), lambda: time.sleep(5)]
        copied([0.5, 0.6, 0.6], press, resume=True, confirm=True, trials=0)
    runs = [[0.7] * 3, [diverge], [0.7] * 3, [0.5] * 3, [0.5, 0.5]]
    result = copied(*runs, resume=True, confirm=True, trials=0)
    assert len(result.trials) == 7  # nothing more was searched
    assert [one.trial.number for one in result.confirmed] == [5, 0]
    rows = pq.read_table(copied.run / "confirm.parquet").to_pylist()
    assert sorted(row["state"] for row in rows if not row["interrupted"]) == ["COMPLETE"] * 5 + ["FAIL"]
    assert [run.folder for run in result.confirmed[0].runs] == ["5-seed1", "5-seed2", "5-seed3"]
    assert result.confirmed[0].values("accuracy")[0] == 0.6
    continued = next(run for run in result.confirmed[1].runs if run.continues is not None)
    assert continued.by_epoch[0] == 0.6 and len(continued.by_epoch) == 3
    run = copied.run / "confirm" / "5-seed1"
    assert {"config.yaml", "metrics.jsonl", "profile.json", "checkpoint"} <= {path.name for path in run.iterdir()}
    assert load_config(run / "config.yaml").training.seed == 1
    assert load_checkpoint(copied.run / "best").info.metrics["validation_accuracy"] == 0.6  # the search's own
    copied(resume=True, trials=0)  # a later call shows them too
    page = (copied.run / "report.html").read_text(encoding="utf-8")
    assert "Confirmed with new seeds" in page and "1 run failed and is left out." in page


def test_ctrl_c_before_any_trial_ends_leaves_the_best_epoch_and_what_to_resume(scripted: Search) -> None:
    driver = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        scripted([0.4, 0.3, lambda: os.kill(driver, signal.SIGINT), lambda: time.sleep(5)])
    assert scripted.states() == ["FAIL", "WAITING"]
    assert load_checkpoint(scripted.run / "best").info.metrics["validation_accuracy"] == 0.4
    assert (scripted.run / "best.yaml").read_text().startswith("# Trial 0, stopped after epoch 2 of 3")
    assert "The best epoch is in trial 0, s, with 40.00%" in (scripted.run / "report.html").read_text()
    lost = scripted.study().ask(fixed_distributions=DISTRIBUTIONS)  # the waiting one, as by a driver that was killed
    result = scripted([0.2], [0.5, 0.55, 0.6], trials=2, resume=True)
    assert scripted.states() == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    closed, again = scripted.study().trials[1:3]
    assert "interrupted" in closed.user_attrs["error"] and again.params == lost.params
    assert (again.user_attrs["continues"], again.user_attrs["by_epoch"]) == (1, [0.4, 0.3, 0.2])
    assert result.best.value == 0.6
    assert scripted(resume=True).best.number == result.best.number  # nothing left: no trial more
    assert len(scripted.states()) == 4


def test_a_time_budget_that_ends_first_leaves_the_best_epoch(scripted: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def time_is_over(self: TrialListener) -> bool:
        trials = scripted.study().trials
        return bool(trials) and len(trials[0].intermediate_values) == 2

    monkeypatch.setattr(TrialListener, "stop_all", time_is_over)
    result = scripted([0.4, 0.7, lambda: time.sleep(5)], trials=2, time_budget="1h")
    assert scripted.states() == ["PRUNED"]
    assert (result.best.number, result.best.value, result.best.stopped) == (0, 0.7, "stopped after epoch 2 of 3")
    checkpoint = load_checkpoint(result.checkpoint)
    assert (checkpoint.info.metrics["validation_accuracy"], checkpoint.info.epoch) == (0.7, 2)
    assert load_config(result.config_file) == result.best.config


def test_two_spaces_in_one_study(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """With real training; the kept checkpoint measures what the study says."""
    files = [tmp_path / "small.yaml", tmp_path / "fast.yaml"]
    files[0].write_text(SPACE)
    files[1].write_text("model: {name: fast}\nsearch: {optimizer.learning_rate: {log_uniform: [0.01, 0.3]}}")
    result = tune(tiny_dataset.path, files, tmp_path / "run", trials=2, overrides=["training.epochs=1"])
    assert [record.space for record in result.trials] == ["small", "fast"]
    assert [record.config for record in result.trials] == [load_config(file, ["training.epochs=1"]) for file in files]
    validation = tiny_dataset.load("validation")
    hits = (Predictor(result.checkpoint).predict(validation.images).labels == validation.labels).mean()
    assert load_checkpoint(result.checkpoint).info.metrics["validation_accuracy"] == result.best.value
    assert hits == pytest.approx(result.best.value)
