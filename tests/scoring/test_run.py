"""Manifests, what is left of a job, how chunks and actors share it, and what is told when Ray ends."""

import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from ray.exceptions import RaySystemError

from fer_ray.errors import DataError, FerRayError
from fer_ray.scoring import manifest, on_ray
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.manifest import Chunk, Manifest, add_listing
from fer_ray.scoring.parts import unwritten_chunks
from fer_ray.scoring.run import LeftInputs
from fer_ray.storage.output import Output


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setattr(manifest, "GROUP_ROWS", 4)
    return Output.at(tmp_path)


def plain(*names: str) -> list[Entry]:
    return [Entry(os.fsencode(name)) for name in names]


def test_entries_come_back_as_they_were(folder: Output) -> None:
    entries = [
        *plain("/a", "/lat\udcfcin", "/new\nline", "/a"),
        Entry(b"/z.zip!/a", b"/z.zip", (1, 2, 3, 8, 2**32 - 1)),
        Entry(b"/z.zip!/b", b"/z.zip", (5,), "unreadable: encrypted"),
    ]
    assert add_listing(folder, iter(entries)) == 6
    read = Manifest(folder)
    assert read.listings == [Chunk(0, 6)] and list(read.entries()) == entries
    for first in range(6):
        for files in range(1, 7 - first):
            assert read.read(Chunk(first, files)) == entries[first : first + files]


def test_a_later_listing_adds_what_is_new(folder: Output) -> None:
    add_listing(folder, [*plain("/a", "/c", "/e", "/g", "/i"), Entry(b"/z!/a", b"/z", (1,))])
    later = [*plain("/a", "/b", "/a", "/c", "/h", "/h"), Entry(b"/z!/a", b"/z", (1,)), Entry(b"/z!/a", b"/z", (2,))]
    assert add_listing(folder, later) == 4
    assert add_listing(folder, later) == 0
    read = Manifest(folder)
    assert read.listings == [Chunk(0, 6), Chunk(6, 4)]
    names = [(entry.name, entry.location) for entry in read.read(Chunk(6, 4))]
    assert names == [(b"/b", ()), (b"/h", ()), (b"/h", ()), (b"/z!/a", (2,))]


def test_damaged(folder: Output) -> None:
    folder.write("_manifest-0000.parquet", b"PAR1 no more")
    with pytest.raises(DataError, match=r"_manifest-0000.parquet: can't be read: .* Start again"):
        Manifest(folder)
