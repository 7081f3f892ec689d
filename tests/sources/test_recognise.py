"""Recognising sources and reading them into raw rows, without Ray."""

from pathlib import Path

import numpy as np
import pytest
from inputs import picture, pixels_text, rows_of, write, zipped
from made_sources import emotions_in, meaning, parquet

from fer_ray.errors import DataError, UsageError
from fer_ray.sources.recognise import open_source
from fer_ray.sources.synthetic import synthetic_faces


def test_the_resplit_kaggle_tree_is_said_to_be_unofficial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_ray.sources.image_trees._RESPLIT", {"train": 3, "validation": 2})
    files = {f"images/{'train' if n < 3 else 'validation'}/happy/{n}.jpg": picture(n) for n in range(5)}
    (note,) = open_source(write(tmp_path, files)).notes
    assert "not the official split" in note


@pytest.mark.parametrize(
    "places",
    [
        {"a/b/Training/Happiness/x.jpeg": ("train", 3)},
        {"val/Fearful/x.png": ("validation", 2)},
        {"disgust/deeper/x.bmp": ("train", 1)},
        {"happy/sad/x.bmp": ("train", 4)},
        {"happy/test/x": ("test", 3)},
        {"3_happy/x.bmp": ("train", 3)},
        {"test/sad/PublicTest_2.jpg": ("validation", 4), "test/sad/PrivateTest_3.jpg": ("test", 4)},  # as msambare's
    ],
)
def test_folders_give_split_and_label_at_any_depth(places: dict[str, tuple[str, int]], tmp_path: Path) -> None:
    rows, _ = rows_of(write(tmp_path / "in", dict.fromkeys(places, picture(9))))
    assert {row["id"]: (row["split"], row["label"]) for row in rows} == places


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


def test_drawn_faces_depend_on_seed_and_number_alone_and_split_eight_one_one() -> None:
    rows, images = rows_of("synthetic:600", seed=3)
    assert len(rows) == 600 == len({row["id"] for row in rows})
    assert [row["split"] for row in rows].count("train") == 480
    assert len(np.unique(images.reshape(600, -1), axis=0)) == 600
    np.testing.assert_array_equal(synthetic_faces(10, seed=3, start=30)[0], images[30:40])
    assert not np.array_equal(synthetic_faces(10, seed=2)[0], images[:10])


CSV = f"emotion,pixels,Usage\n3,{pixels_text(1)},Training\n".encode()


@pytest.mark.parametrize("format", ["folder", "zip"])
@pytest.mark.parametrize("name", ["fer2013.csv", "faces"])
def test_a_table_beside_images_needs_a_choice(name: str, format: str, tmp_path: Path) -> None:
    files = emotions_in("train") | {name: CSV}
    source = write(tmp_path / "in", files)
    if format == "zip":
        source = write(tmp_path, {"x.zip": zipped(files)}) / "x.zip"
    with pytest.raises(DataError, match=rf"{name}.*and 7 images.*--format csv or --format {format}"):
        open_source(source)
    assert open_source(source, format=format).total == 7
    assert meaning(source, format="csv") == {1: ("train", 3)}
    if format == "folder":
        parquet(source / "x.parquet", image=[picture(1)], label=[3])
        with pytest.raises(DataError, match="--format csv or --format parquet or --format folder"):
            open_source(source)


def test_archives_and_tables_beside_images_are_named(tmp_path: Path) -> None:
    source = write(tmp_path, emotions_in("train") | {"more/test.zip": zipped(emotions_in("test"))})
    assert "Not read: 1 file such as more/test.zip" in open_source(source).notes[0]
    write(tmp_path, {"more/labels.csv": b"name,label"})
    assert "Not read: 2 files such as more/" in open_source(source).notes[0]


@pytest.mark.parametrize(
    ("files", "name", "words"),
    [
        ({}, "", "no files"),
        ({"readme.txt": b"x"}, "", "such as readme.txt"),
        ({"x.jpg": picture(3)}, "x.jpg", "PNG"),
        ({"x.csv": b"emotion,pixels\n0,1 2 3\n"}, "x.csv", "3 pixel values"),
    ],
)
def test_a_source_of_something_else_is_refused(files: dict[str, bytes], name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in", files) / name
    with pytest.raises(DataError, match=f"{source}.*{words}.*Expected"):
        open_source(source)


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "nowhere")
    for text in ("synthetic:0", "synthetic:many", "ftp://host/x"):
        with pytest.raises(UsageError, match=r"number of faces|ftp://"):
            open_source(text)
    file = write(tmp_path, {"x.txt": b"x"}) / "x.txt"
    for format in ("folder", "zip", "csv"):
        with pytest.raises(DataError, match=r"x\.txt"):
            open_source(file, format=format)
