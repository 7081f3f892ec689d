"""Trials of several workers: the states are those of trials of one, and nothing of them is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fer_ray.dataset.store import PreparedDataset

pytestmark = pytest.mark.heavy


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
