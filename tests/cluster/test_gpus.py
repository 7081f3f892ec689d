"""Which GPUs processes see that requested none, a part of one or one, on two logical GPUs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import running_nodes

from fer_ray.dataset.store import PreparedDataset

SCRIPT = Path(__file__).parents[1] / "gpus_seen.py"
NONE, WHOLE = {""}, {"0", "1"}
SEEN = {
    "train 0": {"train": NONE},
    "train": {"train": WHOLE},
    "train 3": {"train": NONE},
    "tune 0": {"measure": NONE, "trial": NONE},
    "tune 0.25": {"measure": WHOLE, "trial": WHOLE},
    "tune 1": {"trial": WHOLE},
    "tune on workers 0": {"trial's driver": NONE, "worker of a trial": NONE},
    "tune on workers": {"trial's driver": NONE, "worker of a trial": WHOLE},
    "score 0.25": {"score": WHOLE},
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


def run(dataset: PreparedDataset, folder: Path, *arguments: str) -> None:
    command = [sys.executable, str(SCRIPT), str(dataset.path), str(folder), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr
    check(ended.stdout)


@pytest.mark.slow
def test_a_search_and_scoring_see_what_they_requested(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    run(tiny_dataset, tmp_path, "tune 0", "tune 0.25", "score 1")


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["", "joined"])
def test_every_process_sees_what_it_requested(how: str, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    run(tiny_dataset, tmp_path, *([how] if how else []))


@pytest.mark.heavy
def test_every_process_sees_what_it_requested_in_a_cluster_started_before(
    tiny_dataset: PreparedDataset, tmp_path: Path
) -> None:
    with running_nodes(head_cpus=1) as nodes:
        nodes.environment["CUDA_VISIBLE_DEVICES"] = "0,1"
        nodes.add(cpus=4, gpus=2)
        with (tmp_path / "out").open("w") as out:
            arguments = [str(tiny_dataset.path), str(tmp_path), "train 0", "train", "tune 0", "score 1"]
            driver = nodes.driver("gpus_seen", *arguments, stdout=out, cwd=SCRIPT.parent)
            assert driver.wait(timeout=600) == 0
        check((tmp_path / "out").read_text())
        look = (
            "import os, fer_ray.inference.device as d; d.pick_device(); print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
        )
        (tmp_path / "look.py").write_text(look)
        for gpus, seen in (([], "''"), (["--entrypoint-num-gpus", "1"], "'0'")):
            assert seen in nodes.job_output(gpus, tmp_path / "look.py")
