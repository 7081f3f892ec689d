"""Manifests: entries come back as they were, and what a later listing adds."""

import os
from pathlib import Path

import pytest

from fer_ray.errors import DataError
from fer_ray.scoring import manifest
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.manifest import Chunk, Manifest, add_listing
from fer_ray.storage.output import Output


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
