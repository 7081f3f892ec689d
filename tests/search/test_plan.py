"""How a search shares out a cluster, and what it says that it takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets_made import write_prepared

from fer_ray.config.tune_options import TuneOptions
from fer_ray.errors import UsageError
from fer_ray.search.plan import Allocation, allocate, describe_plan, gpu_fraction, require_gpu_memory
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.search.trial_cost import TrialCost

COST = TrialCost(train=0.001, validate=0.0005, save=0.1, memory=1 << 30)
GIB = 1 << 30


@pytest.mark.parametrize(
    ("nodes", "asked", "each", "concurrent", "resources"),
    [
        ([{"CPU": 2}], None, {}, 2, {"CPU": 1}),
        ([{"CPU": 4}, {"CPU": 4}, {"CPU": 4}], 2, {}, 2, {"CPU": 4}),  # 6 each would fit no node
        ([{"CPU": 16, "GPU": 4}], None, {}, 4, {"CPU": 4, "GPU": 1}),
        ([{"CPU": 16, "GPU": 1}], 2, {}, 2, {"CPU": 8, "GPU": 0.5}),
        ([{"CPU": 64}], None, {}, 20, {"CPU": 3}),  # no more trials than that
        ([{"CPU": 8}], None, {"workers": 2, "cpus": 4}, 2, {"CPU": 2}),
        ([{"CPU": 2}], None, {"gpus": 1}, 1, {"CPU": 1, "GPU": 1}),  # left for `require` to refuse
        ([{"CPU": 16, "GPU": 4}], None, {"workers": 2}, 2, {"CPU": 4, "GPU": 1}),
        ([{"CPU": 64, "GPU": 8}], None, {"gpus": 0.4}, 16, {"CPU": 4, "GPU": 0.4}),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 16, "GPU": 1}], None, {"workers": 2}, 1, {"CPU": 16, "GPU": 1}),
        ([{"CPU": 16, "GPU": 2}], None, {"workers": 4}, 4, {"CPU": 1}),  # GPUs for two of four
    ],
)
def test_shares(
    nodes: list[dict[str, float]], asked: int | None, each: dict[str, Any], concurrent: int, resources: dict[str, float]
) -> None:
    allocation = allocate(nodes, 20, asked, **each)
    assert (allocation.concurrent, allocation.resources) == (concurrent, resources)
    assert allocation.workers == each.get("workers", 1)


def test_why_fewer_trials_run_at_once() -> None:
    nodes = [{"CPU": 8, "memory": 3.5 * GIB}, {"CPU": 8, "memory": 1.5 * GIB}]
    allocation = allocate(nodes, 20, None, memory=GIB)
    assert (allocation.concurrent, allocation.resources["CPU"], allocation.resources["memory"]) == (4, 2, GIB)
    assert allocation.reason == "a process takes 1 GiB of memory"
    reason = allocate([{"CPU": 16, "GPU": 2}], 20, None, workers=4).reason
    assert reason == "as many as fit; without GPUs: only 2 of 4 workers of a trial would get one"


def test_trials_share_a_gpu_as_far_as_its_memory_goes() -> None:
    gpu = replace(COST, gpu=0.3)
    assert gpu_fraction({"small": COST}) == 0 and gpu_fraction({"small": COST, "large": gpu}) == 0.3
    nodes = [{"CPU": 16, "GPU": 1}]
    assert allocate(nodes, 20, 3, gpu_fraction=0.3).resources["GPU"] == pytest.approx(1 / 3)
    assert allocate(nodes, 20, 4, gpu_fraction=0.3).resources["GPU"] == 0.3  # room for three: refused
    allocation = Allocation(4, 1, {"CPU": 1, "GPU": 0.25}, "as requested")
    with pytest.raises(UsageError, match=r"^0.25 GPU per process: PyTorch reserved 30% .*--gpus-per-trial"):
        require_gpu_memory(allocation, {"s": gpu})
    require_gpu_memory(allocation, {"s": COST})


@pytest.fixture
def request_(tmp_path: Path) -> SearchRequest:
    """A search over 64 training and 32 validation images."""
    labels = [number % 7 for number in range(64)]
    data = write_prepared(tmp_path / "data", {"train": labels, "validation": labels[:32]})
    (tmp_path / "s.yaml").write_text(
        "model: {name: cnn3}\nschedule: {first_size: 1}\ntraining: {epochs: 10}\n"
        "search: {training.epochs: {int: [5, 20]}}"
    )
    return check_request(TuneOptions(data.path, [tmp_path / "s.yaml"], tmp_path / "run", 9, time_budget="2h"))


def test_the_time_is_that_of_the_longest_trials(request_: SearchRequest) -> None:
    """5 rounds of 20 epochs of 64 × 1 ms + 32 × 0.5 ms + 0.1 s each: 18 s."""
    allocation = Allocation(2, 1, {"CPU": 1, "memory": GIB}, "one per CPU core")
    said = describe_plan(request_, allocation, {"s": COST}, [{"CPU": 2, "memory": 4 * GIB}])
    assert "9 trials, for at most 2 h 00 min: 2 trials at once (one per CPU core), each process with 1 CPU" in said
    assert "training.epochs: int [5, 20], first 10" in said
    assert "a trial of s: 20 epochs in 4 s; measured images/s of a process: 1,000 trained, 2,000" in said
    assert "time: at most 18 s = 5 × 4 s, if" in said
    assert "1 GiB per process (measured); 2 at once take 2 GiB of the 4 GiB that Ray may use" in said
