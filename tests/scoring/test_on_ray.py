"""Actors of a scoring job: how many fit a cluster, and what is told when Ray ends."""

from collections.abc import Iterator

import pytest
from ray.exceptions import RaySystemError

from fer_ray.errors import FerRayError
from fer_ray.scoring import on_ray


@pytest.mark.parametrize(
    ("nodes", "part", "planned"),
    [
        ([{"CPU": 64, "GPU": 8}], 0.4, (16, 4, 0.4)),
        ([{"CPU": 2, "GPU": 1}], 0.25, (2, 1, 0.25)),  # CPUs for two of four
        ([{"CPU": 8, "GPU": 2}, {"CPU": 32}], 1, (2, 4, 1)),
        ([{"CPU": 8}, {"CPU": 4}], 1, (12, 1, 0)),
        ([{"GPU": 4}, {"CPU": 4}], 1, (4, 1, 0)),  # a head that takes no tasks
    ],
)
def test_actors_share_gpus_as_far_as_they_go(
    nodes: list[dict[str, float]], part: float, planned: tuple[int, int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "nodes", lambda: nodes)
    assert on_ray.plan(part) == planned


def test_the_end_of_ray_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> Iterator[object]:
        yield {"done": []}
        raise RaySystemError("the store died\nand many lines more")

    with pytest.raises(FerRayError, match=r"ended the job: RaySystemError: .* store died. The rows .* --resume.$"):
        list(on_ray._written(batches()))

    def died() -> None:
        raise FerRayError("Ray's raylet died.")

    monkeypatch.setattr(on_ray, "require_running", died)
    with pytest.raises(FerRayError, match=r"^Ray's raylet died. The rows written so far are kept: .* --resume.$"):
        list(on_ray._written(batches()))
