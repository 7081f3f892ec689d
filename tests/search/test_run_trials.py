"""Ray Tune as searches run it: what its own way would do, running trials as a table, and trials of several workers."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from made_up_search import drawn_study
from ray import tune as ray_tune
from rich.console import Console

from fer_ray.cluster import connect
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import FerRayError
from fer_ray.search.on_ray.run_trials import TrialTable, run_to_its_end
from fer_ray.search.on_ray.trial_listener import TrialListener
from fer_ray.search.study import Study


def test_a_search_ends_well_without_its_uploaded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    uploaded.mkdir(parents=True)
    monkeypatch.chdir(uploaded)
    ended = list[str]()

    class Fitting:
        def fit(self) -> None:
            uploaded.rmdir()
            ended.append(os.path.relpath("study/trial", start="study"))  # as Tune does at the end

    run_to_its_end(cast(ray_tune.Tuner, Fitting()))
    assert ended == ["trial"]


def test_a_ray_that_died_ends_a_search_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def died() -> None:
        raise FerRayError("Ray's raylet on this machine died.")

    def fit() -> None:
        try:
            TrialListener.stop_all(SimpleNamespace())  # type: ignore[arg-type]
        except Exception:  # as Tune's loop does, to wait for its actors
            pytest.fail("Tune would wait forever")

    monkeypatch.setattr(connect, "require_running", died)
    with pytest.raises(FerRayError, match=r"raylet on this machine died\. Finished epochs are kept: .* --resume"):
        run_to_its_end(SimpleNamespace(fit=fit))  # type: ignore[arg-type]


def shown(trials: TrialTable, width: int, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(trials)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def study() -> Study:
    """One trial in its fourth epoch of ten, 60 s each, and one that has just begun."""
    study = drawn_study({"fast": 10, "a-space-with-a-rather-long-name": 3})
    for epoch, accuracy in enumerate([0.3, 0.5, 0.6, 0.55], start=1):
        study.report(0, {"epoch": float(epoch), "validation_accuracy": accuracy, "seconds": 60.0})
    return study


def test_a_line_a_trial(study: Study) -> None:
    trials = TrialTable(study)
    first, second = trials.lines()
    assert first.startswith("trial 0: epoch 4/10, 55.00%, best 60.00%, ") and first.endswith(" left, fast")
    assert second == "trial 1: epoch 0/3, a-space-with-a-rather-long-name"
    for width in (40, 200):
        lines = shown(trials, width).splitlines()
        assert len(lines) == 2 and max(map(len, lines)) <= width and "4/10, 55.00%" in lines[0]
    study.prune(0)
    assert trials.lines() == [second]


def test_more_trials_than_fit_are_counted() -> None:
    trials = TrialTable(drawn_study({"fast": 10}, 102))
    assert shown(trials, 80, height=20).splitlines()[-1].strip() == "and 90 more"
    assert trials.lines()[-1] == "and 86 more"
    assert shown(TrialTable(drawn_study({"fast": 10}, 0)), 80) == ""


@pytest.mark.heavy
def test_ended_trials_leave_nothing_behind(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """In a cluster of its own, as Ray Train looks for what a dead trial left by Ray's dashboard."""
    run = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "search_on_workers.py", tiny_dataset.path, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    complete, pruned, failed, interrupted = found["trials"]
    assert (complete["state"], complete["epochs"], complete["value"]) == ("COMPLETE", 9, complete["model.dropout"])
    assert (pruned["state"], pruned["epochs"], pruned["value"]) == ("PRUNED", 1, pruned["model.dropout"])
    assert (failed["state"], failed["epochs"]) == ("FAIL", 0)
    assert failed["error"].startswith("out of memory: Unable to allocate 3.2 GiB. Lower training.batch_size")
    assert (interrupted["state"], interrupted["epochs"]) == ("FAIL", 0)
    assert "interrupted" in interrupted["error"]
    assert found["left"] == []
    assert "1 trial of 2 workers at once" in run.stderr and "Traceback" not in run.stderr
