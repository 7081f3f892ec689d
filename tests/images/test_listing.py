"""Listing trees: order, links, folders that can't be listed or are left out."""

import os
from pathlib import Path

import pytest

from fer_ray.images.image_files import list_files


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
