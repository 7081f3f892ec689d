"""Archives, trees and Parquet with damaged and hostile content: refused with a reason, or read right."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import FACE, encoded, picture, rows_of, write, zipped

from fer_ray.errors import DataError
from fer_ray.images import image_files
from fer_ray.sources.recognise import open_source


def hostile_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        outside = ("../../happy/up.png", "/tmp/happy/absolute.png", "C:\\happy\\drive.png")
        inside = ("happy/good.png", "sad\\windows.png", "happy/encrypted.png", "happy/crc.png", "happy/twice.png")
        for name in (*outside, *inside):
            archive.writestr(name, encoded(FACE))
        archive.writestr("happy/twice.png", picture(7))
        archive.writestr("happy/bomb.png", bytes(image_files.MAX_BYTES + 1))
        archive.writestr("happy/liar.png", bytes(50_000_000))
        archive.writestr("happy/inner.zip", zipped({"happy/x.png": encoded(FACE)}))
        archive.writestr("happy/odd.png", encoded(FACE), zipfile.ZIP_LZMA)
        link = zipfile.ZipInfo("happy/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.getinfo("happy/encrypted.png").flag_bits |= 1
        archive.getinfo("happy/crc.png").CRC ^= 1
        archive.getinfo("happy/liar.png").file_size = 1000
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip(tmp_path: Path) -> None:
    rows, images = rows_of(hostile_zip(tmp_path / "faces.zip"))
    good = {row["id"]: image for row, image in zip(rows, images, strict=True) if row["reason"] is None}
    reasons = {row["id"]: row["reason"] for row in rows if row["reason"]}
    assert sorted(good) == ["happy/good.png", "happy/twice.png", "sad/windows.png"]
    np.testing.assert_array_equal(good["sad/windows.png"], FACE)
    assert (good["happy/twice.png"] == 7).all()
    expected = {
        "../../happy/up.png": "points outside the .zip",
        "/tmp/happy/absolute.png": "points outside the .zip",
        "C:/happy/drive.png": "points outside the .zip",
        "happy/encrypted.png": "encrypted",
        "happy/crc.png": "checksum differs",
        "happy/twice.png": "the same name",
        "happy/bomb.png": f"more than the {image_files.MAX_BYTES:,} allowed",
        "happy/liar.png": "damaged in the .zip",
        "happy/inner.zip": "not_an_image",
        "happy/odd.png": "compression method 14",
        "happy/link.png": "not_an_image",
    }
    assert set(reasons) == set(expected)
    assert all(words in reasons[id] for id, words in expected.items())
    assert [path.name for path in tmp_path.iterdir()] == ["faces.zip"]


def odd_tree(root: Path) -> Path:
    happy = write(root, {"happy/good.png": encoded(FACE), "happy/text.jpg": b"I am a picture.\n"}) / "happy"
    write(root.parent, {"elsewhere/happy/deep.png": encoded(FACE)})
    os.mkfifo(happy / "pipe.png")
    with (happy / "hole.png").open("wb") as file:
        file.truncate(image_files.MAX_BYTES + 1)  # takes no space
    (happy / "circle.png").symlink_to("circle.png")
    (happy / "dangling.png").symlink_to("nowhere.png")
    (happy / "outside.png").symlink_to(root.parent / "elsewhere" / "happy" / "deep.png")
    (happy / "loop").symlink_to(root)
    (root / "linked").symlink_to(root.parent / "elsewhere")
    (root / os.fsdecode(b"happy/latin-\xfc.png")).write_bytes(encoded(FACE))
    return root


def test_a_tree_of_odd_files(tmp_path: Path) -> None:
    rows, images = rows_of(odd_tree(tmp_path / "in" / "tree"))
    good = {row["id"]: image for row, image in zip(rows, images, strict=True) if row["reason"] is None}
    expected = {"happy/good.png", "happy/outside.png", "linked/happy/deep.png", "happy/latin-\\xfc.png"}
    assert set(good) == expected and all((image == FACE).all() for image in good.values())
    assert {row["id"]: row["reason"].split(":")[0] for row in rows if row["reason"]} == {
        "happy/text.jpg": "not_an_image",
        "happy/pipe.png": "not_a_file",
        "happy/circle.png": "unreadable",
        "happy/dangling.png": "missing",
        "happy/hole.png": "too_large",
    }


def test_files_of_a_folder_come_before_those_of_the_folders_in_it(tmp_path: Path) -> None:
    files = ("b/2.jpg", "b/a/9.jpg", "b/1.jpg", "z.jpg", "a/x.jpg", ".hidden/y.jpg", "a/.hidden")
    found = [os.fsdecode(path) for path in image_files.list_files([write(tmp_path, dict.fromkeys(files, b""))])]
    assert found == [f"{tmp_path}/{name}" for name in ("z.jpg", "a/x.jpg", "b/1.jpg", "b/2.jpg", "b/a/9.jpg")]


def test_folders_that_cannot_be_listed_are_named_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith(("sad'", "fear'")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    source = write(tmp_path, {f"{name}/a.png": encoded(FACE) for name in ("happy", "sad", "fear")})
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError) as caught:
        open_source(source)
    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        [f"{tmp_path}/fear", "can't be listed"],
        [f"{tmp_path}/sad", "can't be listed"],
    ]


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_source(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="can't be read: Too many levels of symbolic links"):
        open_source(tmp_path / "circle.csv")


def parquet(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(
        pa.table(columns), file, row_group_size=2, compression="none", use_dictionary=False, write_statistics=False
    )
    return file.getvalue()


FACES = {"image": [encoded(FACE), picture(7), picture(8), picture(9)], "label": [3, 4, 5, 6]}
REFUSED_PARQUET = {
    "cut off": (parquet(FACES)[:-50], "not readable as Parquet"),
    "no image": (parquet({"picture": FACES["image"]}), "picture is called image"),
    "numbers for images": (parquet({"image": [1], "label": [2]}), "column image is int64, expected bytes"),
    "lists for labels": (parquet({"image": [b"x"], "label": [[1]]}), "column label is list"),
    "no rows": (parquet({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), "no rows"),
}


@pytest.mark.parametrize("kind", REFUSED_PARQUET)
def test_parquet_that_cannot_be_read_is_refused(kind: str, tmp_path: Path) -> None:
    data, words = REFUSED_PARQUET[kind]
    with pytest.raises(DataError, match=words) as caught:
        open_source(write(tmp_path, {"x.parquet": data}) / "x.parquet")
    assert "x.parquet" in str(caught.value)


def test_bad_rows_of_parquet_cost_themselves_only(tmp_path: Path) -> None:
    images = [encoded(FACE), None, b"", b"text", *[encoded(FACE)] * 4]
    structs = [{"bytes": data, "path": "a.png"} for data in images] + [None]
    labels = [0, 3, 3, 3, 7, -1, None, 6, 6]
    source = write(tmp_path, {"x.parquet": parquet({"image": structs, "label": labels})}) / "x.parquet"
    rows, images = rows_of(source)
    reasons = [row["reason"] for row in rows]
    assert [at for at, reason in enumerate(reasons) if reason is None] == [0, 6, 7]
    assert (images[[0, 6, 7]] == FACE).all()
    words = ["only the path a.png", "empty", "not_an_image", "emotion '7'", "emotion '-1'", "the cell is null"]
    assert all(word in reason for word, reason in zip(words, filter(None, reasons), strict=True))


def test_damage_inside_parquet_costs_its_row_group(tmp_path: Path) -> None:
    data = bytearray(parquet(FACES))
    at = data.index(FACES["image"][2]) - 24  # the header of the second group's page
    data[at : at + 14] = b"\xff" * 14
    rows, images = rows_of(write(tmp_path, {"x.parquet": bytes(data)}) / "x.parquet")
    assert [bool(row["reason"]) for row in rows] == [False, False, True, True]
    assert "damaged Parquet" in rows[2]["reason"] and (images[0] == FACE).all()
