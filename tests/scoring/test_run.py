"""What is left of a job, and how it is handed out in chunks."""

import random
from itertools import pairwise

import pytest

from fer_ray.scoring.manifest import Chunk
from fer_ray.scoring.parts import unwritten_chunks
from fer_ray.scoring.run import LeftInputs


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ([], [Chunk(0, 10), Chunk(10, 5)]),
        ([Chunk(0, 10), Chunk(10, 5)], []),
        ([Chunk(0, 4), Chunk(6, 2), Chunk(12, 3)], [Chunk(4, 2), Chunk(8, 2), Chunk(10, 2)]),
        ([Chunk(4, 6)], [Chunk(0, 4), Chunk(10, 5)]),
    ],
)
def test_what_parts_leave_of_two_listings(written: list[Chunk], left: list[Chunk]) -> None:
    assert unwritten_chunks([Chunk(0, 10), Chunk(10, 5)], written) == left


def test_several_workers_end_together() -> None:
    inputs = LeftInputs([Chunk(0, 100_000)], workers=4)
    sizes = [chunk.files for _ in range(1000) if (chunk := inputs.take(8000, 64))]
    assert sizes[0] == 8000 and sum(sizes) == 100_000 and len(sizes) < 60
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] <= 1024


@pytest.mark.parametrize("seed", range(5))
def test_workers_share_all_that_is_left_within_their_calls(seed: int) -> None:
    choose = random.Random(seed)
    starts = sorted(choose.sample(range(0, 100_000, 64), 30))
    left = [Chunk(start, min(choose.randrange(1, 3000), end - start)) for start, end in pairwise(starts)]
    workers, calls = choose.randrange(2, 9), 40 + len(left)
    inputs, taken = LeftInputs(left, workers, calls), list[Chunk]()
    for call in range(calls):
        wants = choose.choice((16, 64, 1000, 5000))
        chunk = inputs.take(wants, 16, call)
        assert inputs.take(wants, 16, call) == chunk  # asked again by a call whose process died
        if chunk:
            taken.append(chunk)
    assert [number for chunk in taken for number in range(chunk.first, chunk.end)] == [
        number for chunk in left for number in range(chunk.first, chunk.end)
    ]
    ends = {chunk.end for chunk in left}
    assert all(chunk.files % 16 == 0 or chunk.end in ends for chunk in taken)
