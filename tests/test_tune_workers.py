"""Trials of several workers: the states are those of trials of one, and nothing of them is left behind."""

import json
import subprocess
import sys
from pathlib import Path

from fer_ray.data.store import PreparedDataset


def test_ended_trials_leave_nothing_behind(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """In a cluster of its own, as Ray Train looks for what a dead trial left by Ray's dashboard."""
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "search_on_workers.py"), str(tiny_dataset.path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["states"] == ["COMPLETE", "PRUNED", "FAIL"]
    best, weak, _ = found["dropouts"]
    assert found["values"] == [[best] * 9, [weak], []]
    assert found["error"].startswith("out of memory: Unable to allocate 3.2 GiB. Lower training.batch_size")
    assert found["left"] == []
    assert "1 trial of 2 workers at once" in run.stderr and "Traceback" not in run.stderr
