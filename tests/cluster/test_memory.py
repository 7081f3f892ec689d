"""Amounts of memory and other resources, what fits on nodes, and what a user is told where memory ran out."""

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from fer_ray.cluster import failures
from fer_ray.cluster.failures import Failure, FailureReader
from fer_ray.cluster.memory import available_memory, killed_for_memory
from fer_ray.cluster.resources import describe_resources, fitting, room
from fer_ray.console.text import describe_bytes


def test_amounts_as_a_reader_says_them() -> None:
    amounts = (0, 1023, 69_816_320, 2 << 30)
    assert list(map(describe_bytes, amounts)) == ["0 bytes", "1,023 bytes", "66.6 MiB", "2 GiB"]
    assert describe_resources({"CPU": 2.0, "GPU": 0.25, "memory": 3 << 29}) == ["2 CPUs", "0.25 GPU", "1.5 GiB memory"]


def test_a_container_has_no_more_than_its_limit_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:   1000 kB\n")
    assert available_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("500000\n")
    assert available_memory(meminfo, tmp_path) == 200_000


def test_the_kernel_counts_what_it_killed(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 3\noom_kill_x 9\n")
    assert killed_for_memory(tmp_path / "vmstat") == 3
    assert killed_for_memory(tmp_path / "none") == 0


def test_out_of_memory_says_what_to_change() -> None:
    error = OutOfMemoryError("Task was killed due to the node running low on memory.\nMore lines")
    failure = FailureReader(2).read(error)
    assert failure.kind == "out_of_memory" and "Lower training.batch_size" in failure.text
    assert "(--max-concurrent, now 2)." in failure.text and "\n" not in failure.text
    assert "--max-concurrent" not in FailureReader(1).read(error).text
    assert "(--gpus-per-trial, now 0.25)" in FailureReader(2, 0.25).read(error).text
    assert FailureReader(2).read(ValueError("wrong\nlines")) == Failure("wrong\nlines", "error")


def test_the_kernel_is_asked_whether_it_killed_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 3, 4, 4])
    monkeypatch.setattr(failures, "killed_for_memory", lambda: next(counts))
    reader = FailureReader(1)
    lost, killed = reader.read(ActorDiedError()), reader.read(ActorDiedError())
    assert lost == Failure(f"its process or node was lost\n{ActorDiedError()}", "lost")
    assert killed.text.startswith("out of memory: The actor died") and killed.kind == "out_of_memory"
    assert reader.read(ActorDiedError()) == lost


NODES = [{"CPU": 4.0, "memory": 5e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 1e9}]


@pytest.mark.parametrize(
    ("each", "on_each"),
    [
        ({"CPU": 1}, [4, 2]),
        ({"CPU": 1, "memory": 2e9}, [2, 0]),
        ({"CPU": 1, "GPU": 0.25}, [0, 2]),
        ({"GPU": 0.1}, [0, 10]),  # though 10 × 0.1 is a little above 1
        ({"CPU": 1, "GPU": 0}, [4, 2]),
    ],
)
def test_room_on_nodes(each: dict[str, float], on_each: list[int]) -> None:
    assert [fitting(node, each) for node in NODES] == on_each
    assert room(NODES, each) == sum(on_each)
