"""Which GPUs processes see that requested none, a part of one or one, on two logical GPUs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fer_ray.dataset.store import PreparedDataset

SCRIPT = Path(__file__).parents[1] / "gpus_seen.py"
NONE, WHOLE = {""}, {"0", "1"}
SEEN = {
    "train": {"train": WHOLE},
    "train 3": {"train": NONE},
    "tune 0": {"measure": NONE, "trial": NONE},
    "tune 0.25": {"measure": WHOLE, "trial": WHOLE},
    "tune on workers": {"trial's driver": NONE, "worker of a trial": WHOLE},
    "score 1": {"score": WHOLE},
}


def check(printed: str) -> None:
    """Check that each process sees what it requested, and no two ranks share a GPU."""
    for name, processes in json.loads(printed.splitlines()[-1]).items():
        assert {process["what"] for process in processes} == set(SEEN[name])
        for process in processes:
            assert process["sees"] in SEEN[name][process["what"]], (name, process)
            assert process["has"] == process["sees"].split(",") * bool(process["sees"])
        ranks: dict[str, list[Any]] = {}
        for process in processes:
            ranks.setdefault(process["group"], []).append(process["sees"])
        for group, seen in ranks.items():
            assert not group or seen == [""] * len(seen) or len(set(seen)) == len(seen) == 2, (name, group, seen)


@pytest.mark.heavy
@pytest.mark.parametrize("joined", [[], ["joined"]], ids=["started here", "joined"])
def test_every_process_sees_what_it_requested(joined: list[str], tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tiny_dataset.path), str(tmp_path), *joined]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr
    check(ended.stdout)
