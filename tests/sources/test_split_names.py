"""Splits as other data sets name them: one meaning in every format, or an error that names the remedy."""

import json
from collections import Counter
from pathlib import Path

import pytest
from inputs import picture, pixels_text, rows_of, write, zipped
from made_sources import RAF_DB, csv_file, emotions_in, meaning, numbered, parquet, splits_in, tree

from fer_ray.cli import main
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.sources.label_names import parse_name_options
from fer_ray.sources.recognise import open_source
from fer_ray.sources.split_names import SPLITS, read_splits


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train_set", "Training-Data", "FER2013Train", "trainset", "01_train"], "train"),
        (["val_set", "VALIDATION", "images for validation", "FER2013Valid", "PublicTest", "public_test"], "validation"),
        (["dev", "eval", "hold-out"], "validation"),
        (["testImages", "testing", "Private Test", "test-00000-of-00002.parquet"], "test"),
        (["Validierung", "train_and_test", "latest", "contest", "strained", "images"], None),
    ],
)
def test_a_split_is_read_from_a_word_within_a_name(names: list[str], splits: str | None) -> None:
    for name in names:
        assert read_splits([name]) == {name: splits}


def test_an_evaluation_beside_a_validation_is_the_test() -> None:
    assert read_splits(["train", "val", "eval"])["eval"] == "test"
    assert read_splits(["train", "valid", "HoldOut"])["HoldOut"] == "test"
    assert read_splits(["train", "eval", "test"])["eval"] == "validation"
    assert read_splits(["train", "eval", "holdout"]) == {"train": "train", "eval": "validation", "holdout": "test"}


UNKNOWN = {
    "one among known ones": (emotions_in("data/train", "data/check"), "check", None),
    "none is known": (emotions_in("learn", "check"), "check", "learn=train,check=test"),
    "below the labels": (
        {f"{name}/{split}/x.png": picture(9) for name in EMOTIONS for split in ("learn", "check", "exam")},
        "check",
        "learn=train,check=test,exam=test",
    ),
    "persons, one called like a split": (
        {f"{name}/{person}/x.png": picture(9) for name in EMOTIONS for person in ("anna", "val", "tom")},
        "anna",
        "anna=test,tom=train",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_siblings_one_of_which_is_no_known_split_are_refused_and_listed(kind: str, tmp_path: Path) -> None:
    files, unknown, splits = UNKNOWN[kind]
    source = write(tmp_path / "in", files)
    with pytest.raises(DataError, match=f"side by side.*{unknown}.*--splits '{unknown}=SPLIT'"):
        open_source(source)
    rows, _ = rows_of(source, options=parse_name_options(None, splits or f"{unknown}=test"))
    assert {row["split"] for row in rows if f"{unknown}/" in row["id"]} == {"test"}


@pytest.mark.parametrize("names", [("trainval", "test"), ("all", "val", "test"), "abcdef"])
def test_tables_one_of_which_may_be_for_training_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        parquet(tmp_path / f"{name}-00000-of-00001.parquet", image=[picture(1)], label=["happy"])
    with pytest.raises(DataError, match=f"{names[0]} means no split.*--splits '{names[0]}=SPLIT'"):
        open_source(tmp_path)
    rows, _ = rows_of(tmp_path, options=parse_name_options(None, f"{names[0]}*=validation,*=train"))
    assert [row["split"] for row in rows].count("validation") == 1 and len(rows) == len(names)


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["part-00000-a1", "part-00001-b2"], "train"),
        (["data/a", "data/a1"], "train"),
        (["val/0000", "val/0001"], "validation"),
        (["test-00000-of-00002", "test-00001-of-00002-0a1b"], "test"),
    ],
)
def test_parquet_files_of_one_name_are_of_one_split(names: list[str], split: str, tmp_path: Path) -> None:
    for name in names:
        parquet(tmp_path / "in" / f"{name}.parquet", image=[picture(1)], label=["happy"])
    assert [row["split"] for row in rows_of(tmp_path / "in")[0]] == [split, split]


def test_many_rows_of_an_unknown_split_are_refused(tmp_path: Path) -> None:
    lines = [f"{row % 7},{pixels_text(row)},{'Learning' if row % 2 else 'Test'}" for row in range(20)]
    source = csv_file(tmp_path / "x.csv", "emotion,pixels,Usage", *lines)
    with pytest.raises(DataError, match=r"'Learning' \(10 rows\).*--splits 'Learning=SPLIT'"):
        rows_of(source)
    meant = meaning(source, options=parse_name_options(None, "Learning=train"))
    assert Counter(split for split, _ in meant.values()) == {"train": 10, "test": 10}


def test_a_column_gives_the_split_of_each_row(tmp_path: Path) -> None:
    names = ["Training", "train", "PublicTest", "valid", "PrivateTest", "test", "holiday", None]
    images = [picture(shade) for shade in range(8)]
    rows, _ = rows_of(parquet(tmp_path / "train.parquet", image=images, label=[3] * 8, subset=names))
    expected = ["train", "train", "validation", "validation", "test", "test"]
    assert [row["split"] for row in rows if row["reason"] is None] == expected
    assert [row["reason"].split(",")[0] for row in rows if row["reason"]] == ["split 'holiday'", "split ''"]


@pytest.mark.parametrize("column", ["Split Name", "is_train", "purpose"])
def test_a_column_that_seems_to_hold_splits_is_not_ignored(column: str, tmp_path: Path) -> None:
    values = ["1", "0"] if column == "is_train" else ["train", "test"]
    lines = [f"3,{pixels_text(row)},{value}" for row, value in enumerate(values)]
    sources = [
        csv_file(tmp_path / "x.csv", f"emotion,pixels,{column}", *lines),
        parquet(tmp_path / "x.parquet", image=[picture(1), picture(2)], label=[3, 3], **{column: values}),
    ]
    for source in sources:
        with pytest.raises(DataError, match=f"(?i)column {column} .* seems to hold splits"):
            open_source(source)


ROOTS = {"validation_set": "validation", "jaffe_test": "test", "images for testing": "test", "train_and_test": "train"}


@pytest.mark.parametrize("root", ROOTS)
def test_the_root_gives_the_split_where_nothing_deeper_does(root: str, tmp_path: Path) -> None:
    folder = write(tmp_path / root, {"happy/x.png": picture(9)})
    archive = write(tmp_path, {f"{root}.zip": zipped({f"{root}/happy/x.png": picture(9)})}) / f"{root}.zip"
    table = csv_file(tmp_path / "csv" / root / "x.csv", "emotion,pixels", f"happy,{pixels_text(9)}").parent
    hub = parquet(tmp_path / "hub" / root / "x.parquet", image=[picture(9)], label=["happy"]).parent
    for source in (folder, archive, table, hub):
        assert meaning(source) == {9: (ROOTS[root], 3)}
    write(folder, {"train/happy/x.png": picture(8)})
    (folder / "happy" / "x.png").unlink()
    assert meaning(folder) == {8: ("train", 3)}


@pytest.mark.parametrize(
    "paths",
    [
        ["train/happy/Training_1.png", "test/happy/Training_2.png", "test/happy/PublicTest_3.png"],
        ["train/happy/Training_1.png", "val/happy/PrivateTest_2.png", "test/happy/PublicTest_3.png"],  # swapped
    ],
)
def test_folders_decide_over_official_names_in_a_new_split(paths: list[str], tmp_path: Path) -> None:
    source = write(tmp_path / "in", dict.fromkeys(paths, picture(1)))
    assert any("the folders decide" in note for note in open_source(source).notes)
    expected = {"train": "train", "val": "validation", "test": "test"}
    assert all(row["split"] == expected[row["id"].split("/")[0]] for row in rows_of(source)[0])


@pytest.mark.parametrize(
    "names",
    [
        ("Training_1.jpg", "PublicTest_2.jpg", "PrivateTest_3.jpg"),
        ("img_train_1.jpg", "img_val_1.jpg", "1_public_eval_2.jpg"),
    ],
)
def test_file_names_give_the_split_where_no_folder_does(names: tuple[str, ...], tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"{emotion}/{name}": picture(9) for emotion in EMOTIONS for name in names})
    assert all(row["split"] == SPLITS[names.index(row["id"].split("/")[1])] for row in rows_of(source)[0])
    write(source, {"happy/another.jpg": picture(9)})
    with pytest.raises(DataError, match=r"14 images mean one.*1 others none, such as happy/another.jpg"):
        open_source(source)
    assert splits_in(source, options=parse_name_options(None, "*=train")) == {"train"}


@pytest.mark.parametrize(
    ("form", "persons"),
    [
        ("train/{name}/{person}/x.png", ("ann", "test", "Val")),
        ("train/{person}/{name}/x.png", ("ann", "test", "Val")),
        ("train/{name}/{person}/x.png", ("test",)),
    ],
)
def test_a_person_called_like_a_split_is_only_noted(form: str, persons: tuple[str, ...], tmp_path: Path) -> None:
    names = [form.format(name=name, person=person) for name in EMOTIONS for person in persons]
    source = write(tmp_path, dict.fromkeys(names, picture(9)))
    assert splits_in(source) == {"train"}
    (note,) = open_source(source).notes
    assert "test" in note and "not as splits" in note


def test_of_nested_splits_the_level_that_tells_them_apart_counts(tmp_path: Path) -> None:
    source = write(tmp_path / "a", emotions_in("train/test_session", "test/train_session"))
    found = {(row["id"].split("/")[0], row["split"]) for row in rows_of(source)[0]}
    assert found == {("train", "train"), ("test", "test")}
    assert splits_in(write(tmp_path / "b", emotions_in("my_test/train", "my_test/val"))) == {"train", "validation"}


def test_prepare_takes_the_options_of_the_command_line(ray_cluster: None, tmp_path: Path) -> None:
    source = tree(tmp_path, ("learn", "check", "prove"), numbered(RAF_DB, 1))
    options = ["--labels", ",".join(RAF_DB), "--splits", "learn=train,check=validation,prove=test"]
    with pytest.raises(SystemExit) as caught:
        main(["prepare", str(source), str(tmp_path / "out"), *options])
    assert caught.value.code == 0
    held = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert {split: info["labels"]["happy"] for split, info in held["splits"].items()} == dict.fromkeys(SPLITS, 3)
    assert any("in the order of --labels: 1 surprise" in note for note in held["notes"])
