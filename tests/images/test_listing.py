"""Listing trees: order, links, folders that can't be listed or are larger than a run."""

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fer_ray.images import image_files
from fer_ray.images.image_files import Content, list_files, runs_of, walk


def names(root: Path) -> list[str]:
    return [os.fsdecode(path).removeprefix(f"{root}/") for path in list_files([root])]


def touch(root: Path, *image_files: str) -> None:
    for file in image_files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_files_of_a_folder_come_before_those_of_the_folders_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b/a/9.jpg", "b/1.jpg", "z.jpg", "a/x.jpg", ".hidden/y.jpg", "a/.hidden")
    assert names(tmp_path) == ["z.jpg", "a/x.jpg", "b/1.jpg", "b/2.jpg", "b/a/9.jpg"]


def test_links_to_folders_are_followed_but_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert names(tmp_path) == ["loop", "a/1.jpg", "b/2.jpg", "b/to_a/1.jpg", "c/2.jpg", "c/to_a/1.jpg"]


def test_a_folder_that_cannot_be_listed_stands_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["a/1.jpg", "b", "c/3.jpg"]
    told: list[OSError] = []
    assert len(list(list_files([tmp_path], told.append))) == 2
    assert [error.filename for error in told] == [os.fsencode(tmp_path / "b")]


def test_a_folder_larger_than_a_run_comes_in_sorted_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "RUN", 10)
    touch(tmp_path, *(f"{number:03}.jpg" for number in range(95)), "below/x.jpg")
    found = names(tmp_path)
    assert sorted(found[:-1]) == [f"{number:03}.jpg" for number in range(95)] and found[-1] == "below/x.jpg"
    flat = found[:-1]
    assert sum(later < earlier for earlier, later in pairwise(flat)) <= 10


def test_a_fault_after_the_first_run_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "RUN", 2)

    def entries() -> Iterator[tuple[bytes, bool]]:
        yield from [(b"/r/1", False), (b"/r/2", True)]
        raise OSError(5, "Input/output error")

    def list_folder(path: bytes) -> Content:
        return Content(None, runs_of(entries() if path == b"/r" else iter([(path + b"/x", False)])))

    assert list(walk(b"/r", list_folder)) == [b"/r/1", b"/r", b"/r/2/x"]


def test_slow_folders_are_asked_side_by_side_and_no_more_than_allowed() -> None:
    """As on a network drive; the order is that of a plain walk all the same."""
    at_once, most, lock = [0], [0], threading.Lock()

    def list_folder(path: bytes) -> Content:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        with lock:
            at_once[0] -= 1
        depth = path.count(b"/")
        inside = [(path + b"/%02d" % number, depth < 3) for number in range(12)]
        return Content(path, runs_of(iter(inside)))

    found = list(walk(b"/r", list_folder))
    assert found == sorted(found) and len(found) == 12**3
    assert 4 < most[0] <= image_files.AHEAD
