"""``tune --confirm``: the best configurations with new seeds, on Ray, going on where an earlier call left it."""

from pathlib import Path

import pytest

from fer_ray.dataset.store import PreparedDataset
from fer_ray.inference.checkpoint import TRAINING_FILE, load_checkpoint
from fer_ray.search.confirmation import SeedRun, seed_runs
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics
from fer_ray.tune import TuneResult, tune

SPACE = """
model: {name: lenet}
optimizer: {name: adam, learning_rate: 0.001}
training: {epochs: 2}
search:
  optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
"""


def stop(metrics: Metrics) -> None:
    raise InterruptedError


def left_over(runs: list[SeedRun], data: TrainingData) -> list[SeedRun]:
    """Leave one run finished, one killed after its first epoch, and one that can't go on."""
    finished, killed, damaged = runs[:3]
    finished.begin()
    finished.train(data, lambda metrics: None)
    for run in (killed, damaged):
        run.begin()
        with pytest.raises(InterruptedError):
            run.train(data, stop)
    (damaged.folder.last / TRAINING_FILE).unlink()
    return [finished, killed, damaged]


def test_only_what_is_left_is_trained(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    space, output = tmp_path / "small.yaml", tmp_path / "run"
    space.write_text(SPACE)

    def call(resume: bool, confirm: bool) -> TuneResult:
        return tune(tiny_dataset.path, [space], output, trials=2, scheduler="none", resume=resume, confirm=confirm)

    searched = call(resume=False, confirm=False)
    assert searched.confirmed == [] and not (output / "confirm").exists()
    runs = seed_runs(searched.trials, OBJECTIVES["accuracy"], output / "confirm")
    finished, killed, damaged = left_over(runs, TrainingData.load(tiny_dataset))
    previous = finished.folder.history(), killed.folder.history()

    result = call(resume=True, confirm=True)
    assert [record.number for record in result.trials] == [0, 1]  # nothing more was searched
    assert finished.folder.history() == previous[0]
    assert killed.folder.history()[:1] == previous[1] and len(killed.folder.history()) == 2
    rows = [row for one in result.confirmed for row in one.rows]
    assert {row["run"] for row in rows} == {run.name for run in runs} and len(rows) == 6
    assert [row["run"] for row in rows if row["error"]] == [damaged.name]
    assert "training.pt: missing" in next(row["error"] for row in rows if row["error"])
    assert sorted(len(one.values()) for one in result.confirmed) == [2, 3]
    kept = {path.name for run in runs if run is not damaged for path in run.folder.path.iterdir()}
    assert kept == {"config.yaml", "metrics.jsonl", "profile.json", "checkpoint"}
    assert not (output / ".ray").exists()

    best = max(searched.trials, key=lambda record: record.value or 0.0)
    assert result.best.number == best.number
    assert load_checkpoint(output / "best").info.metrics["validation_accuracy"] == best.value
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Confirmed with new seeds" in page and "1 run failed and is left out." in page
