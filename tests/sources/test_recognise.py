"""Recognising sources and reading them into raw rows, without Ray."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inputs import picture, pixels_text, rows_of, write, zipped
from made_sources import emotions_in, meaning, parquet

from fer_ray.errors import DataError, UsageError
from fer_ray.sources.name_options import NameOptions
from fer_ray.sources.recognise import open_source

RNG = np.random.default_rng(0)


def places(folder: Path, *paths: str, **options: Any) -> list[tuple[str, str | None, int | None]]:
    """Return path, split and label of each row of a tree with images at these paths."""
    rows, _ = rows_of(write(folder / "in", {path: picture(9) for path in paths}), **options)
    return [(row["id"], row["split"], row["label"]) for row in rows]


def test_msambare_tells_the_later_splits_apart_by_file_name(tmp_path: Path) -> None:
    paths = ("test/neutral/PrivateTest_3.jpg", "test/sad/PublicTest_2.jpg", "train/happy/Training_1.jpg")
    assert places(tmp_path, *paths) == list(zip(paths, ["test", "validation", "train"], [6, 4, 3], strict=True))


@pytest.mark.parametrize(
    ("path", "split", "label"),
    [
        ("images/validation/angry/9.jpg", "validation", 0),
        ("a/b/Training/Happiness/x.jpeg", "train", 3),
        ("val/Fearful/x.png", "validation", 2),
        ("PrivateTest/surprise/x", "test", 5),
        ("disgust/deeper/x.bmp", "train", 1),
        ("happy/sad/x.bmp", "train", 4),
        ("happy/test/x.bmp", "test", 3),
        ("3_happy/x.bmp", "train", 3),
    ],
)
def test_folders_give_split_and_label_at_any_depth(path: str, split: str, label: int, tmp_path: Path) -> None:
    assert places(tmp_path, path) == [(path, split, label)]


PASSED_OVER = ["README.md", "train/labels.csv", "train/happy/.DS_Store", "happy/Thumbs.db", ".trash/happy/x.png"]
PASSED_OVER += ["train/.ipynb_checkpoints/happy/x.png", "__MACOSX/train/happy/x.png", "train/happy/.old/x.png"]


@pytest.mark.parametrize("format", ["folder", "zip"])
@pytest.mark.parametrize("root", ["in", ".cache"])
def test_files_that_are_no_images_and_hidden_folders_are_passed_over(format: str, root: str, tmp_path: Path) -> None:
    files = {path: picture(9) for path in (*PASSED_OVER, "train/happy/x.png")}
    source = write(tmp_path / root, files)
    if format == "zip":
        source = write(tmp_path, {f"{root}.zip": zipped({f"{root}/{path}": data for path, data in files.items()})})
        source /= f"{root}.zip"
    assert [row["id"] for row in rows_of(source)[0]] == ["train/happy/x.png"]


def test_an_image_under_an_unknown_label_is_rejected_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, {"happy/a.png": picture(1), "smile/b.png": picture(2)})
    rows, _ = rows_of(tmp_path, options=NameOptions(allow_unknown=True))
    assert rows[1]["id"] == "smile/b.png" and "emotion 'smile'" in rows[1]["reason"]


def test_images_of_any_size_kind_and_name_are_read_by_content(tmp_path: Path) -> None:
    files = {
        "happy/1.jpg": picture(50),  # a PNG called .jpg
        "happy/2.png": picture(60, (200, 100), "RGB", "JPEG"),
        "happy/3.png": b"this is text",
        "happy/4.jpg": b"",
        "happy/5.jpg": picture(70, format="JPEG")[:200],
        "happy/6": picture(80, (10, 10), "RGB", "WEBP"),
    }
    rows, images = rows_of(write(tmp_path, files))
    reasons = [row["reason"] and row["reason"].split(":")[0] for row in rows]
    assert reasons == [None, None, "not_an_image", "empty", "truncated", None]
    assert (rows[1]["width"], rows[1]["height"]) == (200, 100)
    assert rows[2]["path"] == f"{tmp_path}/happy/3.png"
    assert np.abs(images.mean((1, 2))[[0, 1, 5]] - [50, 60, 80]).max() <= 1
    assert [row["flat"] for row in rows][:2] == [True, True]


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    files = {f"images/train/sad/{number}.png": picture(number) for number in range(5)}
    files |= {"images/val/fear/x.jpg": picture(99, (64, 64), "RGB", "JPEG"), "images/val/fear/bad.jpg": b"nothing"}
    folder = write(tmp_path / "faces", files)
    rows, images = rows_of(folder)
    assert [row["id"] for row in rows] == sorted(files)
    for name, root, method in [("a.zip", "", zipfile.ZIP_STORED), ("faces.zip", "faces/", zipfile.ZIP_DEFLATED)]:
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for path, data in reversed(files.items()):
                archive.writestr(root + path, data)
        zipped_rows, zipped_images = rows_of(tmp_path / name)
        for row in (*rows, *zipped_rows):
            row.pop("path", None)
        assert zipped_rows == rows
        np.testing.assert_array_equal(zipped_images, images)


def test_damage_inside_a_zip_costs_that_member_only(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("happy/1.bmp", picture(10, format="BMP"))
        archive.writestr("happy/2.bmp", picture(20, format="BMP"))
        archive.writestr("happy/3.bmp", picture(30, format="BMP"), zipfile.ZIP_BZIP2)
        first = archive.getinfo("happy/1.bmp")
    data = bytearray(path.read_bytes())
    data[first.header_offset + 30 + len(first.filename) + 20] ^= 0xFF
    path.write_bytes(data)
    rows, _ = rows_of(path)
    assert "damaged in the .zip" in rows[0]["reason"]
    assert rows[1]["reason"] is None
    assert "compression method 12" in rows[2]["reason"]


def test_fer2013_csv(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, 2304)
    lines = [
        "emotion,pixels,Usage",
        f"0,{' '.join(map(str, image))},Training",
        f"6,{pixels_text(255)},PublicTest",
        f"4,{pixels_text(0)},PrivateTest",
        f"7,{pixels_text(5)},Training",
        f"1,{pixels_text(5, 2303)},Training",
        "",
        f"1,{pixels_text(256)},Training",
        f"1,{pixels_text(-1)},Training",
        f"1,{pixels_text(5)[:-1]}x,Training",
        f"1,{pixels_text(5)},Holiday",
        f"1,{pixels_text(5)}",
        f'happy,"{pixels_text(9)}",training',
        f"1,{pixels_text(5)[:1000]}",  # the file was cut off here
    ]
    path = tmp_path / "fer2013.csv"
    path.write_bytes("\r\n".join(lines).encode())
    rows, images = rows_of(path)
    good = [row for row in rows if not row["reason"]]
    assert [(row["id"], row["split"], row["label"]) for row in good] == [
        ("row-0000001", "train", 0),
        ("row-0000002", "validation", 6),
        ("row-0000003", "test", 4),
        ("row-0000011", "train", 3),
    ]
    np.testing.assert_array_equal(images[0].reshape(-1), image)
    bad = {row["id"]: row["reason"] for row in rows if row["reason"]}
    expected = {4: "'7'", 5: "2303", 6: "256", 7: "-1", 8: "'x'", 9: "Holiday", 10: "column", 12: "column"}
    assert list(bad) == [f"row-{number:07}" for number in expected]
    for number, words in expected.items():
        assert words in bad[f"row-{number:07}"]


def test_icml_csv_has_blanks_in_its_names_and_another_order(tmp_path: Path) -> None:
    path = tmp_path / "icml_face_data.csv"
    path.write_text(f"\ufeffemotion, Usage, pixels\n3, Training,{pixels_text(7)}\n5, PrivateTest, {pixels_text(8)}\n")
    rows, images = rows_of(path)
    assert [(row["split"], row["label"], row["reason"]) for row in rows] == [("train", 3, None), ("test", 5, None)]
    assert images.mean((1, 2)).tolist() == [7, 8]


def test_competition_folder_has_an_unlabelled_test(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"emotion,pixels\n0,{pixels_text(1)}\n2,{pixels_text(2)}\n")
    rows, _ = rows_of(tmp_path / "train.csv")
    assert [(row["split"], row["label"]) for row in rows] == [("train", 0), ("train", 2)]
    (tmp_path / "test.csv").write_text(f"pixels\n{pixels_text(3)}\n")
    rows, _ = rows_of(tmp_path)
    assert [(row["id"], row["split"], row["label"]) for row in rows][1:] == [
        ("row-0000002", "train", 2),
        ("row-0000003", "test", None),
    ]


def test_a_large_csv_is_cut_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shades = RNG.integers(0, 256, 50).tolist()
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels\n" + "".join(f"{row % 7},{pixels_text(s)}\n" for row, s in enumerate(shades)))
    whole = rows_of(path)
    monkeypatch.setattr("fer_ray.sources.csv_files._TASK_BYTES", 20_000)
    assert len(open_source(path).manifest) > 10
    rows, images = rows_of(path)
    assert rows == whole[0] and len(rows) == 50
    assert images[:, 0, 0].tolist() == shades


def test_images_of_another_size_in_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("emotion,pixels\n" + f"0,{pixels_text(9, 100)}\n0,{pixels_text(9, 80)}\n" * 2)
    rows, images = rows_of(tmp_path / "a.csv")
    assert [bool(row["reason"]) for row in rows] == [False, True, False, True]
    assert rows[0]["width"] == 10 and (images[0] == 9).all()


def test_synthetic_splits_eight_one_one() -> None:
    rows, images = rows_of("synthetic:600", seed=3)
    assert len(rows) == 600 == len({row["id"] for row in rows})
    assert [row["split"] for row in rows].count("train") == 480
    assert len(np.unique(images.reshape(600, -1), axis=0)) == 600


STRAY = {
    "a CSV": ("votes.csv", f"emotion,pixels\n3,{pixels_text(1)}\n".encode()),
    "the official CSV": ("fer2013.csv", f"emotion,pixels,Usage\n3,{pixels_text(1)},Training\n".encode()),
    "a table without a suffix": ("faces", f"emotion,pixels\n3,{pixels_text(1)}\n".encode()),
}


@pytest.mark.parametrize("format", ["folder", "zip"])
@pytest.mark.parametrize("kind", STRAY)
def test_a_table_beside_images_needs_a_choice(kind: str, format: str, tmp_path: Path) -> None:
    files = emotions_in("train") | dict([STRAY[kind]])
    source = write(tmp_path / "in", files)
    if format == "zip":
        source = write(tmp_path, {"x.zip": zipped(files)}) / "x.zip"
    with pytest.raises(DataError, match=rf"{STRAY[kind][0]}.*and 7 images.*--format csv or --format {format}"):
        open_source(source)
    assert open_source(source, format=format).total == 7
    assert meaning(source, format="csv") == {1: ("train", 3)}


def test_parquet_beside_images_needs_a_choice(tmp_path: Path) -> None:
    parquet(write(tmp_path, emotions_in("train")) / "x.parquet", image=[picture(1)], label=[3])
    with pytest.raises(DataError, match="--format parquet or --format folder"):
        open_source(tmp_path)


def test_archives_and_tables_beside_images_are_named(tmp_path: Path) -> None:
    source = write(tmp_path, emotions_in("train") | {"more/test.zip": zipped(emotions_in("test"))})
    assert "Not read: 1 file such as more/test.zip" in open_source(source).notes[0]
    write(tmp_path, {"more/labels.csv": b"name,label"})
    assert "Not read: 2 files such as more/" in open_source(source).notes[0]


def test_two_links_to_a_folder_are_two_folders(tmp_path: Path) -> None:
    write(tmp_path, {"store/a/x.png": picture(1), "in/train/sad/y.png": picture(2)})
    (tmp_path / "in" / "train" / "happy").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "in" / "val").mkdir()
    (tmp_path / "in" / "val" / "fear").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "in" / "val" / "circle").symlink_to(tmp_path / "in")
    rows, _ = rows_of(tmp_path / "in")
    assert {(row["id"], row["split"], row["label"]) for row in rows} == {
        ("train/happy/x.png", "train", 3),
        ("train/sad/y.png", "train", 4),
        ("val/fear/x.png", "validation", 2),
    }


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no files"),
        ({"a/b.jpg": b"x", "readme.txt": b"x"}, "such as readme.txt, a/b.jpg"),
        ({"fer.csv": b"emotion,pixels\n"}, "fer.csv"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    with pytest.raises(DataError, match=r"Expected") as caught:
        open_source(write(tmp_path, files))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.csv", b"name,age\nbob,3\n", "name,age"),
        ("x.zip", b"PK but no zip", "an unreadable .zip"),
        ("x.jpg", picture(3), "PNG"),
        ("x.csv", b"", "empty"),
        ("x.csv", b"emotion,pixels,Usage\n", "no data rows"),
        ("x.csv", b"emotion,pixels\n0,1 2 3\n", "3 pixel values"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = write(tmp_path, {name: data}) / name
    with pytest.raises(DataError, match=r"Expected") as caught:
        open_source(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "nowhere")
    for text in ("synthetic:0", "synthetic:many", "synthetic:-5"):
        with pytest.raises(UsageError, match="number of faces"):
            open_source(text)
    with pytest.raises(UsageError, match="ftp://"):
        open_source("ftp://host/x")
    file = write(tmp_path, {"x.txt": b"x"}) / "x.txt"
    for format in ("folder", "zip", "csv"):
        with pytest.raises(DataError, match=r"x\.txt"):
            open_source(file, format=format)
