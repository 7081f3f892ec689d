"""What a search may take: requests that fit nowhere, and what a step is measured to cost."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from datasets_made import write_prepared
from ray import cloudpickle
from scripted_search import SPACE, Search, cost_nothing

from fer_ray.cli import main
from fer_ray.cluster import connect
from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.search import trial_cost
from fer_ray.search.on_ray import preflight
from fer_ray.search.plan import Allocation, Costs
from fer_ray.search.request import SearchRequest
from fer_ray.search.trial_cost import measure_trial
from fer_ray.training.rows import TrainingData
from fer_ray.tune import tune

pytestmark = pytest.mark.usefixtures("ray_cluster")
Amounts = dict[str, float]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests


@pytest.fixture
def scripted(tiny_dataset: PreparedDataset, tmp_path: Path) -> Search:
    return Search(tiny_dataset, tmp_path)


def test_a_request_that_does_not_fit_writes_nothing(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    said: list[tuple[dict[str, Any], str]] = [
        ({"max_concurrent": 3}, r"3 × \(1 CPU\) requested, room for 2. 1 node\(s\), with 2 CPUs"),
        ({"gpus_per_trial": 1}, r"1 × \(1 CPU, 1 GPU\) requested, room for 0. 1 node\(s\), with 2 CPUs and 0 GPU"),
        ({"workers_per_trial": 4}, r"workers of 1 trial at once: 4 × \(1 CPU\) requested, room for 2"),
    ]
    for asked, message in said:
        with pytest.raises(UsageError, match=message):
            tune(tiny_dataset.path, [tmp_path / "s.yaml"], tmp_path / "run", trials=9, **asked)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("node", "resources", "measured"),
    [
        ({"CPU": 4, "memory": 9 << 30}, {"CPU": 1}, True),
        ({"CPU": 4, "memory": 9 << 30}, {"CPU": 2}, False),
        ({"CPU": 2, "GPU": 1, "memory": 90 << 30}, {"CPU": 1, "GPU": 1}, False),
        ({"CPU": 2, "GPU": 1, "memory": 90 << 30}, {"CPU": 1, "GPU": 0.5}, True),
    ],
)
def test_a_search_measures_where_memory_may_be_short(
    node: Amounts, resources: Amounts, measured: bool, scripted: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "nodes", lambda: [node])
    monkeypatch.setattr(preflight, "measure_costs", cost_nothing)
    data = TrainingData.load(scripted.dataset)
    costs = preflight.measure_where_tight(scripted.request(3), data, Allocation(1, 1, resources, "as requested"))
    assert bool(costs) == measured


def test_dry_run(
    scripted: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processes that measured end: else Ray keeps them for other tasks, with what they have of a GPU's memory."""

    def measure(request: SearchRequest, data: TrainingData, threads: int) -> Costs:
        (tmp_path / f"{os.getpid()}.pid").touch()
        return cost_nothing(request, data, Allocation(2, 1, {"CPU": 1}, "as requested"))

    monkeypatch.setattr(preflight, "_measure", measure)
    (tmp_path / "s.yaml").write_text(SPACE)
    arguments = ["--dataset", scripted.dataset.path, "--space", tmp_path / "s.yaml", "--output", scripted.run]
    limits = ["--trials", "9", "--max-concurrent", "1", "--time-budget", "2h"]
    with pytest.raises(SystemExit) as end:
        main(["tune", *map(str, arguments), *limits, "--dry-run"])
    plan = capsys.readouterr().out
    assert end.value.code == 0
    assert "9 trials, for at most 2 h 00 min: 1 trial at once (as requested), each process with 2 CPUs" in plan
    assert not scripted.run.exists()
    pids = {int(file.stem) for file in tmp_path.glob("*.pid")}
    deadline = time.monotonic() + 20
    while (left := {pid for pid in pids if psutil.pid_exists(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pids and not left


def test_a_step_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [number % 7 for number in range(300)]
    data = TrainingData.load(write_prepared(tmp_path / "data", {"train": labels, "validation": labels[:40]}))
    monkeypatch.setattr(trial_cost, "_SECONDS", 0.05)
    config = load_config(None, ["model.name=cnn3", "optimizer.learning_rate=10"])  # at which a run would diverge
    cost = measure_trial(config, data)
    assert 0 < cost.validate < 1 and 0 < cost.train < 1
    assert cost.memory > 100 << 20 and cost.gpu == 0
