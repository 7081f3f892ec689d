"""The tune stage: the study, its files, resuming, and calls that are refused."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray import cloudpickle
from scripted_search import SPACE, Scripted, Search, cost_nothing

from fer_ray.cli import main
from fer_ray.cluster import connect
from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import FerRayError, UsageError
from fer_ray.inference.checkpoint import load_checkpoint, load_training_state
from fer_ray.inference.predictor import Predictor
from fer_ray.search.on_ray.trial_listener import TrialListener
from fer_ray.storage.output import open_output
from fer_ray.tune import search, tune

pytestmark = pytest.mark.usefixtures("ray_cluster")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests


@pytest.fixture
def scripted(tiny_dataset: PreparedDataset, tmp_path: Path) -> Search:
    return Search(tiny_dataset, tmp_path)


def diverge() -> None:
    raise UsageError("the run diverged")


def die() -> None:
    os._exit(1)


def bug() -> None:
    raise ValueError("a bug")


def test_the_study_holds_what_the_trials_reported(scripted: Search) -> None:
    """One search with every end that a trial can have; trials whose process dies restart once."""
    lost_once, lost_twice = [[0.45, 0.6, die], [0.5]], [[0.4, die], [die]]
    script = [[0.2, 0.5, 0.4], [0.1, 0.6, 0.6], [0.3, diverge], [bug], *lost_twice, *lost_once]
    result = scripted(*script, trials=6)

    trials = scripted.study().trials
    assert scripted.states() == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "COMPLETE"]
    by_epoch = [trial.user_attrs.get("by_epoch", []) for trial in trials]
    assert by_epoch == [[0.2, 0.5, 0.4], [0.1], [0.3], [], [0.4], [0.45, 0.6, 0.5]]
    assert [trial.value for trial in trials] == [0.5, 0.1, None, None, None, 0.6]
    assert list(trials[0].intermediate_values.values()) == [0.2, 0.5, 0.5]  # the best so far, by which trials compete
    assert trials[0].params == {"model.dropout": 0.5, "optimizer.learning_rate": 0.001}
    errors = [trial.user_attrs.get("error", "") for trial in trials]
    assert errors[2:4] == ["the run diverged", "ValueError: a bug"]
    assert errors[4].startswith("its process or") and errors[4].endswith("lost 2 times; training.max_failures = 1")
    assert (trials[5].user_attrs["macro_f1"], trials[5].user_attrs["seconds"]) == (0.3, 3)
    assert scripted.study().study_name.startswith("run-")

    assert result.best.number == 5 and result.best.best_epoch == 2
    checkpoint = load_checkpoint(result.checkpoint)
    assert (checkpoint.info.metrics["validation_accuracy"], checkpoint.info.epoch) == (0.6, 2)
    assert load_config(result.config_file) == checkpoint.info.config == result.best.config
    names = {path.name for path in scripted.run.iterdir()}
    files = {"study.db", "study.json", "trials.parquet", "best.yaml", "report.html", "provenance.json", "best", ".lock"}
    assert names == files

    table = pq.read_table(scripted.run / "trials.parquet").to_pydict()
    assert table["number"] == [0, 1, 2, 3, 4, 5]
    assert table["state"] == scripted.states()
    assert table["epochs"] == [3, 1, 1, 0, 1, 3]
    assert table["best_epoch"] == [2, 1, 1, None, 1, 2]
    assert table["architecture"] == ["cnn3"] * 6
    assert table["model.dropout"] == [trial.params["model.dropout"] for trial in trials]


def test_resume_closes_what_a_dead_driver_left_and_adds_trials(scripted: Search) -> None:
    scripted([0.2, 0.3, 0.4])
    lost = scripted.study().ask()  # as by a driver that was killed
    lost.suggest_float("model.dropout", 0.2, 0.7)
    result = scripted([0.3, 0.4, 0.3], [0.3, 0.4, 0.5], resume=True)
    assert scripted.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    trials = scripted.study().trials
    assert "interrupted" in trials[1].user_attrs["error"]
    assert trials[2].params["model.dropout"] == lost.params["model.dropout"]
    assert result.best.number == 3
    assert scripted(resume=True).best.number == 3  # nothing left: no trial more
    assert len(scripted.states()) == 4


def test_confirm_trains_the_best_with_new_seeds(scripted: Search) -> None:
    """Ctrl-C within the runs: the next call trains what is left, from the last epoch on."""
    driver = os.getpid()
    scripted([0.2, 0.3, 0.4], [0.5, 0.6, 0.7], scheduler="none")
    with pytest.raises(KeyboardInterrupt):
        press = [0.6, lambda: os.kill(driver, signal.SIGINT), lambda: time.sleep(5)]
        scripted([0.5, 0.6, 0.6], press, resume=True, confirm=True, trials=0)
    runs = [[0.5] * 3, [diverge], [0.5] * 3, [0.5] * 3, [0.5, 0.5]]
    result = scripted(*runs, resume=True, confirm=True, trials=0)
    assert [record.number for record in result.trials] == [0, 1]  # nothing more was searched
    assert [one.trial.number for one in result.confirmed] == [1, 0]
    rows = pq.read_table(scripted.run / "confirm.parquet").to_pylist()
    assert sorted(row["state"] for row in rows if not row["interrupted"]) == ["COMPLETE"] * 5 + ["FAIL"]
    assert [run.folder for run in result.confirmed[0].runs] == ["1-seed1", "1-seed2", "1-seed3"]
    assert result.confirmed[0].values("accuracy")[0] == 0.6
    continued = next(run for run in result.confirmed[1].runs if run.continues is not None)
    assert continued.by_epoch[0] == 0.6 and len(continued.by_epoch) == 3
    run = scripted.run / "confirm" / "1-seed1"
    assert {"config.yaml", "metrics.jsonl", "profile.json", "checkpoint"} <= {path.name for path in run.iterdir()}
    assert load_config(run / "config.yaml").training.seed == 1
    assert load_checkpoint(scripted.run / "best").info.metrics["validation_accuracy"] == 0.7  # the search's own
    page = (scripted.run / "report.html").read_text(encoding="utf-8")
    assert "Confirmed with new seeds" in page and "1 run failed and is left out." in page
    scripted(resume=True, trials=0)  # a later call shows them too
    assert "Confirmed with new seeds" in (scripted.run / "report.html").read_text(encoding="utf-8")


def test_tensorboard_has_a_run_a_trial(scripted: Search) -> None:
    scripted([0.2, 0.3, 0.4], [0.5, 0.6, 0.7], loggers=["tensorboard"])
    written = [next((scripted.run / "tensorboard" / name).glob("events*")).read_bytes() for name in ("0", "1")]
    assert all(b"ray/tune/validation_accuracy" in content and b"model.dropout" in content for content in written)


def test_resume_wants_the_storage_of_the_first_call(scripted: Search) -> None:
    scripted.run.mkdir()
    (scripted.run / "study.json").write_text('{"study": "elsewhere", "confirmation": null}')
    with pytest.raises(UsageError, match="--storage"):
        search(scripted.request(2, resume=True), Scripted([], scripted.calls), cost_nothing)
    assert not (scripted.run / "study.db").exists()


def test_ctrl_c_leaves_a_study_that_resumes(scripted: Search) -> None:
    driver = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        scripted([0.2, 0.3, 0.4], [0.3, lambda: os.kill(driver, signal.SIGINT), 0.5, 0.6], [0.1, 0.1, 0.1])
    assert scripted.states()[:2] == ["COMPLETE", "FAIL"] and "RUNNING" not in scripted.states()
    known = scripted.study().trials[1].user_attrs["by_epoch"]
    # An epoch that was over before the driver heard of it is kept too.
    kept = len(load_training_state(scripted.run / ".trials" / "1" / "last")["history"])
    values = [0.3, 0.5, 0.6][:kept] + [0.7] * (3 - kept)
    assert 1 <= len(known) <= kept and known == values[: len(known)]
    result = scripted([0.7] * (3 - kept), resume=True)
    assert result.best.value == max(values) and result.trials[2].continues == 1
    assert scripted.study().trials[2].user_attrs["by_epoch"] == values


def test_time_that_ends_before_any_trial_leaves_the_best_epoch(
    scripted: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is marked as of a stopped trial everywhere, and makes way once a trial trains to its end."""

    def time_is_over(self: TrialListener) -> bool:
        trials = scripted.study().trials
        return bool(trials) and len(trials[0].intermediate_values) == 2

    with monkeypatch.context() as patched:
        patched.setattr(TrialListener, "stop_all", time_is_over)
        result = scripted([0.4, 0.7, lambda: time.sleep(5)], trials=2, time_budget="1h")
    assert scripted.states() == ["PRUNED"]
    assert (result.best.number, result.best.value, result.best.stopped) == (0, 0.7, "stopped after epoch 2 of 3")
    checkpoint = load_checkpoint(result.checkpoint)
    assert (checkpoint.info.metrics["validation_accuracy"], checkpoint.info.epoch) == (0.7, 2)
    assert load_config(result.config_file) == result.best.config
    assert Path(result.config_file).read_text().startswith("# Trial 0, stopped after epoch 2 of 3; no trial")
    page = (scripted.run / "report.html").read_text()
    assert (
        "The best epoch is in trial 0, s, with 70.00% validation accuracy. This trial was stopped after epoch 2" in page
    )
    result = scripted([0.8, 0.9, 0.6], trials=1, resume=True)
    assert scripted.states() == ["PRUNED", "COMPLETE"] and (result.best.number, result.best.stopped) == (1, "")
    assert load_checkpoint(result.checkpoint).info.metrics["validation_accuracy"] == 0.9
    assert "stopped" not in Path(result.config_file).read_text()


def test_an_epoch_that_ends_as_the_search_stops_counts(scripted: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process isn't ended within an epoch, and what it then keeps is what the study says."""
    monkeypatch.setattr(TrialListener, "stop_all", lambda listener: (scripted.calls / "0").exists())
    result = scripted([0.4, 0.7, lambda: time.sleep(3), 0.8], trials=2, time_budget="1h")
    assert scripted.states()[0] in ("PRUNED", "COMPLETE")
    checkpoint = load_checkpoint(result.checkpoint).info
    assert (result.best.value, result.best.best_epoch) == (
        checkpoint.metrics["validation_accuracy"],
        checkpoint.epoch,
    )


def test_ctrl_c_before_any_trial_ends_leaves_the_best_epoch(scripted: Search) -> None:
    driver = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        scripted([0.4, 0.3, lambda: os.kill(driver, signal.SIGINT), lambda: time.sleep(5)])
    assert scripted.states() == ["FAIL", "WAITING"]
    assert load_checkpoint(scripted.run / "best").info.metrics["validation_accuracy"] == 0.4
    assert (scripted.run / "best.yaml").read_text().startswith("# Trial 0, stopped after epoch 2 of 3")
    assert "The best epoch is in trial 0, s, with 40.00%" in (scripted.run / "report.html").read_text()
    result = scripted([0.2], trials=1, resume=True)
    assert (result.best.number, result.best.value, result.best.continues) == (1, 0.4, 0)


def test_a_search_whose_trials_all_fail_says_why(scripted: Search) -> None:
    why = "none of 2 trials is complete. The first error: the run diverged. report.html lists all errors."
    remedy = "Fix the cause, then resume with --resume and more --trials."
    with pytest.raises(UsageError, match=re.escape(f"{why} {remedy}")):
        scripted([diverge], [diverge])
    assert scripted.states() == ["FAIL", "FAIL"]


def test_a_search_that_another_one_preceded_writes_nothing(scripted: Search) -> None:
    asked = scripted.request(2)  # while the folder is free
    with open_output(scripted.run), pytest.raises(UsageError, match="another process is writing there"):
        search(asked, Scripted([], scripted.calls), cost_nothing)
    assert [path.name for path in scripted.run.iterdir()] == [".lock"]
    scripted([0.2, 0.3, 0.4])  # a folder that holds nothing but a lock is free
    before = (scripted.run / "study.json").read_text()
    with pytest.raises(UsageError, match="in use, and nothing is overwritten"):
        search(asked, Scripted([], scripted.calls), cost_nothing)
    assert (scripted.run / "study.json").read_text() == before and scripted.counted() == 1


def test_a_database_that_goes_away_ends_the_search_in_words(scripted: Search) -> None:
    database = scripted.run / "study.db"
    with pytest.raises(FerRayError, match=r"study\.db: the study's database no longer answers: .* --resume\.$"):
        scripted([0.2, database.unlink, 0.3, 0.4])
    assert (scripted.run / "report.html").is_file()


def test_two_spaces_in_one_study(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """With real training; the kept checkpoint measures what the study says."""
    files = [tmp_path / "small.yaml", tmp_path / "fast.yaml"]
    files[0].write_text(SPACE)
    files[1].write_text("model: {name: fast}\nsearch: {optimizer.learning_rate: {log_uniform: [0.01, 0.3]}}")
    result = tune(tiny_dataset.path, files, tmp_path / "run", trials=3, overrides=["training.epochs=1"])
    assert [record.space for record in result.trials[:2]] == ["small", "fast"]
    assert [record.config for record in result.trials[:2]] == [
        load_config(file, ["training.epochs=1"]) for file in files
    ]
    validation = tiny_dataset.load("validation")
    hits = (Predictor(result.checkpoint).predict(validation.images).labels == validation.labels).mean()
    assert load_checkpoint(result.checkpoint).info.metrics["validation_accuracy"] == result.best.value
    assert hits == pytest.approx(result.best.value)


def test_wrong_calls_end_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect, "connect", lambda: pytest.fail("Ray was started"))
    arguments = ["--dataset", "nowhere", "--space", "none.yaml", "--output", str(tmp_path / "run")]
    for trials, problems in (("0", ["--trials 0"]), ("1", ["nowhere", "none.yaml"])):
        with pytest.raises(SystemExit) as end:
            main(["tune", *arguments, "--trials", trials])
        said = capsys.readouterr().err
        assert end.value.code == 2 and all(problem in said for problem in problems)
