"""How many processes fit on nodes."""

import pytest

from fer_ray.cluster.resources import fitting, most_cpus, room, shared_gpu

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


def test_parts_of_a_gpu_are_of_one_gpu() -> None:
    for gpus, part, count in [(8, 0.4, 16), (8, 0.6, 8), (3, 1 / 3, 9), (1, 0.01, 100)]:
        assert fitting({"GPU": gpus}, {"GPU": part}) == count
        assert room([{"GPU": 1.0}] * gpus, {"GPU": part}) == count


@pytest.mark.parametrize(
    ("nodes", "count", "part"),
    [
        ([{"CPU": 16, "GPU": 4}], 3, 1),
        ([{"CPU": 16, "GPU": 4}], 4, 1),
        ([{"CPU": 16, "GPU": 4}], 5, 1 / 2),
        ([{"CPU": 2, "GPU": 4}, {"CPU": 14, "GPU": 1}], 6, 1 / 4),  # the first node has CPUs for two of them
        ([{"CPU": 2, "GPU": 1}], 5, 1 / 5),  # no room whatever the part
    ],
)
def test_a_gpu_is_shared_by_no_more_than_have_to(nodes: list[dict[str, float]], count: int, part: float) -> None:
    assert shared_gpu(nodes, {"CPU": 1}, count) == part


@pytest.mark.parametrize(
    ("each", "count", "left", "cpus"),
    [
        ({}, 1, 0, 4),
        ({}, 2, 0, 2),
        ({}, 3, 0.1, 2),  # two on the node of 4, one on that of 2
        ({}, 6, 0.1, 1),
        ({}, 9, 0, 1),  # more than fit: told elsewhere
        ({"GPU": 0.5}, 2, 0, 1),  # only the node with a GPU counts
    ],
)
def test_cpus_of_each_process(each: dict[str, float], count: int, left: float, cpus: int) -> None:
    assert most_cpus(NODES, each, count, left) == cpus
