"""Manifests: chunks, entries named several times, and what a later listing adds."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fer_ray.errors import DataError
from fer_ray.scoring import manifest
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.manifest import ChunkReader, add_listing, listings, read_chunks
from fer_ray.storage.output import Output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setattr(manifest, "CHUNK_FILES", 4)
    (tmp_path / "out").mkdir()
    return Output.at(tmp_path / "out")


def plain(*names: str) -> list[Entry]:
    return [Entry(os.fsencode(name)) for name in names]


def listed(folder: Output) -> list[list[list[tuple[str, int]]]]:
    reader = ChunkReader(folder)
    return [
        [[(os.fsdecode(entry.name), times) for entry, times in reader.read(chunk)] for chunk in chunks]
        for chunks in read_chunks(folder)
    ]


def test_entries_come_back_as_they_were_in_chunks(folder: Output) -> None:
    entries: Sequence[Entry] = [
        *plain("/a", "/lat\udcfcin", "/new\nline"),
        Entry(b"/z.zip!/a", b"/z.zip", (1, 2, 3, 8, 2**32 - 1)),
        Entry(b"/z.zip!/b", b"/z.zip", (5,), "unreadable: encrypted"),
    ]
    assert add_listing(folder, iter(entries), may_repeat=False) == 5
    ((first, second),) = read_chunks(folder)
    assert (first.files, second.files) == (4, 1)
    reader = ChunkReader(folder)
    assert [*reader.read(first), *reader.read(second)] == [(entry, 1) for entry in entries]
    assert [path.name for path in Path(folder.path).iterdir()] == ["_manifest-0000.parquet"]


@pytest.mark.parametrize("rows", [[], ["/a"], ["/a", "/b", "/a", "/c", "/b", "/a", "/d", "/e", "/f"]])
def test_what_is_named_several_times_has_one_entry(folder: Output, rows: list[str]) -> None:
    assert add_listing(folder, plain(*rows), may_repeat=True) == len(rows)
    if rows[1:]:
        (chunks,) = listed(folder)
        assert chunks == [[("/a", 3), ("/b", 2), ("/c", 1), ("/d", 1)], [("/e", 1), ("/f", 1)]]
        assert [chunk.files for chunk in read_chunks(folder)[0]] == [7, 2]
    assert listings(folder) == (["_manifest-0000.parquet"] if rows else [])


def test_members_of_one_name_at_two_places_are_two(folder: Output) -> None:
    entries = [Entry(b"/z!/a", b"/z", (place,)) for place in (1, 2, 1)]
    add_listing(folder, entries, may_repeat=True)
    assert [[times for _, times in chunk] for chunk in listed(folder)[0]] == [[2, 1]]


def test_a_later_listing_adds_what_is_new(folder: Output) -> None:
    add_listing(folder, plain("/a", "/c", "/e", "/g", "/i"), may_repeat=False)
    assert add_listing(folder, plain("/a", "/b", "/c", "/e", "/g", "/h", "/h", "/i"), may_repeat=True) == 3
    assert add_listing(folder, plain("/a", "/b", "/c", "/e", "/g", "/h", "/i"), may_repeat=False) == 0
    assert listed(folder)[1] == [[("/b", 1), ("/h", 2)]]
    assert len(listings(folder)) == 2


def test_many_names_one_of_them_twice(tmp_path: Path) -> None:
    """Over all the files that digests are spread over."""
    folder = Output.at(tmp_path)
    names = [f"/faces/{number}.jpg" for number in range(5000)]
    assert add_listing(folder, plain(*names, names[77]), may_repeat=True) == 5001
    times = dict(pair for chunk in listed(folder)[0] for pair in chunk)
    assert list(times) == names and {name for name, count in times.items() if count > 1} == {names[77]}


def test_the_end_of_a_listing_is_read_once(folder: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    add_listing(folder, (Entry(b"/%d" % number) for number in range(4000)), may_repeat=False)
    (chunks,) = read_chunks(folder)
    read = list[int]()

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(Output, "open", lambda folder, name: Counted(f"{folder.path}/{name}"))
    reader = ChunkReader(folder)
    reader.read(chunks[0])
    first, read[:] = sum(read), []
    assert [os.fsdecode(entry.name) for entry, _ in reader.read(chunks[-1])] == ["/3996", "/3997", "/3998", "/3999"]
    assert 0 < sum(read) < first / 50


def test_damaged(folder: Output) -> None:
    folder.write("_manifest-0000.parquet", b"PAR1 no more")
    with pytest.raises(DataError, match=r"_manifest-0000.parquet: not readable: .* Start anew"):
        read_chunks(folder)


@pytest.mark.parametrize(("files", "most_chunks"), [(1, 1), (1000, 16), (200_000, 300)])
def test_small_jobs_have_enough_chunks_to_share_out_and_large_ones_few(
    tmp_path: Path, files: int, most_chunks: int
) -> None:
    folder = Output.at(tmp_path)
    assert add_listing(folder, (Entry(b"/%d" % number) for number in range(files)), may_repeat=False) == files
    (chunks,) = read_chunks(folder)
    sizes = [chunk.files for chunk in chunks]
    assert sum(sizes) == files
    assert max(sizes) <= min(1024, max(64, files // 16)), "no chunk is more than its share of two cores or of many"
    assert len(sizes) <= most_chunks
    assert sizes[:-1] == sorted(sizes[:-1])
