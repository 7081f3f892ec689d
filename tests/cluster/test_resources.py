"""How many processes fit on nodes."""

import pytest

from fer_ray.cluster.resources import fitting, room

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
