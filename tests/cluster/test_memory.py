"""Amounts of memory as users write and read them."""

from pathlib import Path

from fer_ray.cluster.memory import available_memory, killed_for_memory
from fer_ray.cluster.resources import describe_resources
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
