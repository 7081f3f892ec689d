"""Data in other habits than FER-2013's: one meaning in every format, or a refusal that names the remedy."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import encoded, picture, pixels_text, rows_of, write, zipped

from fer_ray.cli import main
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.prepare import prepare
from fer_ray.sources.label_names import Naming, read_naming
from fer_ray.sources.recognise import open_source
from fer_ray.sources.split_names import read_splits

SPLITS = ("train", "validation", "test")
RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
AFFECT_NET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")
NOUNS = ("anger", "disgusted", "fearful", "joy", "sadness", "surprised", "neutrality")


def numbers(order: tuple[str, ...], first: int, form: str = "{}") -> list[str]:
    return [form.format(order.index(name) + first) for name in EMOTIONS]


HABITS: dict[str, tuple[tuple[str, ...], list[str], str | None]] = {
    "FER-2013": (("Training", "PublicTest", "PrivateTest"), list(EMOTIONS), None),
    "RAF-DB": (("train", "val", "test"), numbers(RAF_DB, 1), ",".join(RAF_DB)),
    "AffectNet": (("train_set", "val_set", "test_set"), numbers(AFFECT_NET, 0), ",".join((*AFFECT_NET, "contempt"))),
    "FER+": (("FER2013Train", "FER2013Valid", "FER2013Test"), [name.upper() for name in NOUNS], None),
    "numbers as floats": (("trainset", "for validation", "testing"), numbers(EMOTIONS, 0, "{}.0"), ",".join(EMOTIONS)),
    "split and label in one name": (("", "", ""), list(EMOTIONS), None),
    "pairs": (("learn", "dev", "holdout"), [f"{name}ish" for name in EMOTIONS], "angryish=angry,disgustish=disgust"),
}
LABELS = [label for label in range(7) for _ in range(3)]  # of the rows of each split


def shade(split: str, number: int) -> int:
    return 70 * SPLITS.index(split) + 3 * number


def tree_files(splits: Iterable[str], labels: list[str]) -> dict[str, bytes]:
    if not any(splits):
        splits = [f"{split}_" for split in SPLITS]
        return {path.replace("_/", "_"): data for path, data in tree_files(splits, labels).items()}
    return {
        f"{name}/{labels[label]}/{number:02}.png": picture(shade(split, number))
        for name, split in zip(splits, SPLITS, strict=True)
        for number, label in enumerate(LABELS)
    }


def tree(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    return write(folder / "in", tree_files(splits, labels))


def archive(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    files = {f"faces/{path}": data for path, data in tree_files(splits, labels).items()}
    return write(folder, {"faces.zip": zipped(files)}) / "faces.zip"


def csv(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    files = {}
    for name, split in zip(splits, SPLITS, strict=True):
        lines = [f"{labels[label]},{pixels_text(shade(split, number))}" for number, label in enumerate(LABELS)]
        files[f"{name}.csv"] = "\n".join(["label,pixels", *lines]).encode()
    return write(folder / "in", files)


def hub(folder: Path, splits: tuple[str, ...], labels: list[str]) -> Path:
    meta = {"info": {"features": {"label": {"_type": "ClassLabel", "names": labels}}}}
    (folder / "in").mkdir()
    for name, split in zip(splits, SPLITS, strict=True):
        images = [picture(shade(split, number)) for number in range(len(LABELS))]
        table = pa.table({"image": images, "label": LABELS}).replace_schema_metadata({"huggingface": json.dumps(meta)})
        pq.write_table(table, folder / "in" / f"{name}-00000-of-00001.parquet")
    return folder / "in"


def meaning(source: Path, **options: Any) -> dict[int, tuple[str, int]]:
    """Return split and label of each row by its shade."""
    rows, images = rows_of(source, **options)
    return {int(image[0, 0]): (row["split"], row["label"]) for row, image in zip(rows, images, strict=True)}


@pytest.mark.parametrize("make", [tree, archive, csv, hub])
@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_means_the_same_in_every_format(
    habit: str, make: Callable[[Path, tuple[str, ...], list[str]], Path], tmp_path: Path
) -> None:
    splits, labels, option = HABITS[habit]
    if not any(splits) and make in (csv, hub):
        splits = SPLITS  # a table has no folders
    if habit == "pairs":
        option = ",".join(f"{written}={name}" for written, name in zip(labels, EMOTIONS, strict=True))
    naming = read_naming(option, "learn=train" if habit == "pairs" else None)
    expected = {shade(split, row): (split, label) for split in SPLITS for row, label in enumerate(LABELS)}
    assert meaning(make(tmp_path, splits, labels), naming=naming) == expected


ORDERS = {
    "RAF-DB": (range(1, 8), "RAF-DB, from 1: --labels surprise,fear"),
    "AffectNet with contempt": (range(8), "AffectNet, from 0: --labels neutral,happy"),
    "FER-2013's order from 1": (range(1, 8), "FER-2013, from 0: --labels angry"),
    "nine classes": (range(9), "--labels"),
    "compound classes": (range(1, 12), "--labels"),
}


@pytest.mark.parametrize("form", ["csv", "csv of floats", "parquet", "digits for names", "folders"])
@pytest.mark.parametrize("order", ORDERS)
def test_numbers_that_are_not_in_the_order_of_fer2013_are_refused(order: str, form: str, tmp_path: Path) -> None:
    labels, words = [number for number in ORDERS[order][0] for _ in range(3)], ORDERS[order][1]
    if form == "folders":
        files = {f"train/{label}/{row}.png": picture(row) for row, label in enumerate(labels)}
        source = write(tmp_path / "in", files)
    elif form.startswith("csv"):
        end = ".0" if form != "csv" else ""
        lines = [f"{label}{end},{pixels_text(row)},Training" for row, label in enumerate(labels)]
        source = write(tmp_path, {"x.csv": "\n".join(["emotion,pixels,Usage", *lines]).encode()}) / "x.csv"
    else:
        table = pa.table({"image": [picture(row) for row in range(len(labels))], "label": labels})
        if form == "digits for names":
            names = [str(number) for number in ORDERS[order][0]]
            table = table.set_column(1, "label", pa.array([names.index(str(label)) for label in labels]))
            meta = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(meta)})
        source = tmp_path / "x.parquet"
        pq.write_table(table, source)
    with pytest.raises(DataError, match=r"in the order of FER-2013|an order that nothing tells") as caught:
        rows_of(source)
    assert words in str(caught.value) and str(source) in str(caught.value)


def test_folders_of_numbers_need_an_order_even_where_it_may_be_that_of_fer2013(tmp_path: Path) -> None:
    source = write(tmp_path, {f"train/{label}/x.png": picture(label) for label in range(7)})
    with pytest.raises(DataError, match="an order that nothing tells"):
        open_source(source)
    assert meaning(source, naming=read_naming(",".join(AFFECT_NET), None))[0] == ("train", 6)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("happy", "expected each emotion once"),
        ("happy,sad,happy", "expected each emotion once"),
        ("happy,sadd,fear", r"sadd \(sad\?\) is no emotion"),
        ("1=happy,2=smile", "smile is no emotion"),
        ("1=happy,sad", "'sad' is no pair such as"),
    ],
)
def test_a_wrong_order_is_a_wrong_call(option: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_naming(option, None)


def test_an_order_that_may_begin_at_either_number_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, {f"train/{label}/x.png": picture(label) for label in range(2, 6)})
    with pytest.raises(DataError, match=r"Give numbers too: --labels 1=surprise"):
        open_source(source, naming=Naming(order=RAF_DB))
    assert meaning(source, naming=read_naming("2=fear,3=disgust,4=happy,5=sad", None))[4] == ("train", 3)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_set", "train"),
        ("Training-Data", "train"),
        ("FER2013Train", "train"),
        ("trainset", "train"),
        ("01_train", "train"),
        ("val_set", "validation"),
        ("VALIDATION", "validation"),
        ("images for validation", "validation"),
        ("FER2013Valid", "validation"),
        ("PublicTest", "validation"),
        ("public_test", "validation"),
        ("dev", "validation"),
        ("eval", "validation"),
        ("hold-out", "validation"),
        ("testImages", "test"),
        ("testing", "test"),
        ("Private Test", "test"),
        ("test-00000-of-00002.parquet", "test"),
        ("Validierung", None),
        ("train_and_test", None),
        ("latest", None),
        ("contest", None),
        ("strained", None),
        ("images", None),
    ],
)
def test_a_split_is_read_from_a_word_within_a_name(name: str, split: str | None) -> None:
    assert read_splits([name]) == {name: split}


def test_an_evaluation_beside_a_validation_is_the_test() -> None:
    assert read_splits(["train", "val", "eval"])["eval"] == "test"
    assert read_splits(["train", "valid", "HoldOut"])["HoldOut"] == "test"
    assert read_splits(["train", "eval", "test"])["eval"] == "validation"
    assert read_splits(["train", "eval", "holdout"]) == {"train": "train", "eval": "validation", "holdout": "test"}


def emotions_in(*folders: str) -> dict[str, bytes]:
    return {f"{folder}/{name}/x.png": picture(9) for folder in folders for name in EMOTIONS}


UNKNOWN_SPLITS = {
    "a word in another language": (emotions_in("train", "Validierung", "test"), "Validierung"),
    "a neighbour": (emotions_in("train", "test", "extra"), "extra"),
    "two splits in one name": (emotions_in("trainval", "test"), "trainval"),
    "deeper": (emotions_in("data/train", "data/check"), "check"),
    "none is known": (emotions_in("learn", "check"), "check"),
    "below the labels": (
        {f"{name}/{split}/x.png": picture(9) for name in EMOTIONS for split in ("learn", "check", "exam")},
        "check",
    ),
    "persons, one called like a split": (
        {f"{name}/{person}/x.png": picture(9) for name in EMOTIONS for person in ("anna", "val", "tom")},
        "anna",
    ),
}


MORE = {
    "none is known": read_naming(None, "learn=train,check=test"),
    "below the labels": read_naming(None, "learn=train,check=test,exam=test"),
    "persons, one called like a split": read_naming(None, "anna=test,tom=train"),
}


@pytest.mark.parametrize("format", ["folder", "zip"])
@pytest.mark.parametrize("kind", UNKNOWN_SPLITS)
def test_neighbours_of_which_one_is_no_known_split_are_refused_and_listed(
    kind: str, format: str, tmp_path: Path
) -> None:
    files, unknown = UNKNOWN_SPLITS[kind]
    source = write(tmp_path / "in", files)
    if format == "zip":
        source = write(tmp_path, {"x.zip": zipped({f"x/{path}": data for path, data in files.items()})}) / "x.zip"
    with pytest.raises(DataError, match=f"side by side.*{unknown}.*--splits '{unknown}=SPLIT'"):
        open_source(source)
    rows, _ = rows_of(source, naming=MORE.get(kind, read_naming(None, f"{unknown}=test")))
    of_unknown = [row["split"] for row in rows if f"{unknown}/" in row["id"]]
    assert set(of_unknown) == {"test"}


def test_parquet_files_of_which_one_is_no_known_split_are_refused_and_listed(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(1)], "label": ["happy"]})
    for name in ("train-00000-of-00002", "train-00001-of-00002", "check-00000-of-00001"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="side by side are check, train, and check is called like no split"):
        open_source(tmp_path)
    assert open_source(tmp_path, naming=read_naming(None, "check*=validation")).total == 3


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["part-00000-a1", "part-00001-b2"], "train"),
        (["0000", "0001"], "train"),
        (["data/a", "data/a1"], "train"),
        (["fer_20240101_test", "fer_20240102_test"], "test"),
        (["rafdb-00001_val", "rafdb-00002_val"], "validation"),
        (["test-00000-of-00002", "test-00001-of-00002-0a1b"], "test"),
    ],
)
def test_parquet_files_of_one_name_are_of_one_split(names: list[str], split: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.table({"image": [picture(1)], "label": ["happy"]}), tmp_path / "in" / f"{name}.parquet")
    rows, _ = rows_of(tmp_path / "in")
    assert [row["split"] for row in rows] == [split, split]


@pytest.mark.parametrize("column", ["Usage", "split"])
def test_many_rows_of_an_unknown_split_are_refused(column: str, tmp_path: Path) -> None:
    lines = [f"{row % 7},{pixels_text(row)},{'Learning' if row % 2 else 'Test'}" for row in range(20)]
    source = write(tmp_path, {"x.csv": "\n".join([f"emotion,pixels,{column}", *lines]).encode()}) / "x.csv"
    with pytest.raises(DataError, match=r"'Learning' \(10 rows\).*--splits 'Learning=SPLIT'"):
        rows_of(source)
    assert Counter(split for split, _ in meaning(source, naming=read_naming(None, "Learning=train")).values()) == {
        "train": 10,
        "test": 10,
    }


ROOTS = {
    "test": "test",
    "validation_set": "validation",
    "fer2013-test": "test",
    "TestImages": "test",
    "faces": "train",
    "jaffe_test": "test",
    "images for testing": "test",
    "final_test": "test",
    "kaggle-val": "validation",
    "train_and_test": "train",
}


@pytest.mark.parametrize("format", ["folder", "zip", "parquet", "csv"])
@pytest.mark.parametrize("root", ROOTS)
def test_the_root_gives_the_split_where_nothing_deeper_does(root: str, format: str, tmp_path: Path) -> None:
    source = tmp_path / root
    if format == "folder":
        write(source, {"happy/x.png": picture(9)})
    elif format == "zip":
        source = write(tmp_path, {f"{root}.zip": zipped({f"{root}/happy/x.png": picture(9)})}) / f"{root}.zip"
    elif format == "csv":
        write(source, {"x.csv": f"emotion,pixels\nhappy,{pixels_text(9)}\n".encode()})
    else:
        source.mkdir()
        pq.write_table(pa.table({"image": [picture(9)], "label": ["happy"]}), source / "x.parquet")
    assert meaning(source) == {9: (ROOTS[root], 3)}
    if format == "folder":
        write(source, {"train/happy/x.png": picture(8)})
        (source / "happy" / "x.png").unlink()
        assert meaning(source) == {8: ("train", 3)}


@pytest.mark.parametrize("name", ["joyous", "smile", "Happi", "7"])
@pytest.mark.parametrize("make", [tree, archive, csv, hub])
def test_a_class_lost_to_an_unknown_name_is_refused(
    make: Callable[[Path, tuple[str, ...], list[str]], Path], name: str, tmp_path: Path
) -> None:
    labels = [name if emotion == "happy" else emotion for emotion in EMOTIONS]
    source = make(tmp_path, ("train", "val", "test"), labels)
    if name == "7" and make in (csv, hub):
        with pytest.raises(DataError, match="its labels are the numbers 7"):
            rows_of(source, naming=Naming())
        return
    with pytest.raises(
        DataError, match=f"train has no row of happy.*{name.lower()} 3.*=(happy|EMOTION)'.*--allow-unknown"
    ):
        rows_of(source, naming=Naming())
    rows, _ = rows_of(source, naming=Naming(allow_unknown=True))
    assert sum(row["reason"] is not None for row in rows) == 9
    assert 3 in {label for _, label in meaning(source, naming=read_naming(f"{name}=happy", None)).values()}


def test_a_further_class_is_left_out_and_named(ray_cluster: None, tmp_path: Path) -> None:
    files = tree_files(("train", "val", "test"), list(EMOTIONS)) | {"train/contempt/x.png": picture(1)}
    info = prepare(write(tmp_path / "in", files), tmp_path / "out").info
    assert any("1 rows are left out" in note and "contempt 1" in note for note in info.notes)
    assert info.rejected == 1 and info.splits["train"].rows == len(LABELS)


def named_as_fer2013(split: str, folder: str) -> dict[str, bytes]:
    first = {"train": 1, "val": 2, "test": 3}[folder]
    return {f"{folder}/{name}/{split}_{first}{row}.png": picture(first) for row, name in enumerate(EMOTIONS)}


RESPLITS = {
    "both later splits": [("PublicTest", "val"), ("PrivateTest", "val"), ("PublicTest", "test"), ("Training", "train")],
    "test images in train": [("Training", "train"), ("PrivateTest", "train"), ("PublicTest", "test")],
    "training images in test": [("Training", "train"), ("Training", "test"), ("PublicTest", "test")],
    "swapped": [("Training", "train"), ("PrivateTest", "val"), ("PublicTest", "test")],
}


@pytest.mark.parametrize("kind", RESPLITS)
def test_folders_decide_over_official_names_where_somebody_split_anew(kind: str, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for split, folder in RESPLITS[kind]:
        files |= named_as_fer2013(split, folder)
    source = open_source(write(tmp_path / "in", files))
    assert any("the folders decide" in note for note in source.notes)
    rows, _ = rows_of(tmp_path / "in")
    expected = {"train": "train", "val": "validation", "test": "test"}
    assert all(row["split"] == expected[row["id"].split("/")[0]] for row in rows)


@pytest.mark.parametrize(
    "names",
    [
        ("Training_1.jpg", "PublicTest_2.jpg", "PrivateTest_3.jpg"),
        ("train_00001_aligned.jpg", "val_1.jpg", "test_0001_aligned.jpg"),
        ("img_train_1.jpg", "img_val_1.jpg", "1_public_eval_2.jpg"),
    ],
)
def test_file_names_give_the_split_where_no_folder_does_and_all_have_one(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    files = {f"{emotion}/{name}": picture(9) for emotion in EMOTIONS for name in names}
    rows, _ = rows_of(write(tmp_path / "in", files))
    assert all(row["split"] == SPLITS[names.index(row["id"].split("/")[1])] for row in rows)
    write(tmp_path / "in", {"happy/another.jpg": picture(9)})
    with pytest.raises(DataError, match=r"14 images say one.*1 others say none, such as happy/another.jpg"):
        open_source(tmp_path / "in")
    rows, _ = rows_of(tmp_path / "in", naming=read_naming(None, "*=train"))
    assert {row["split"] for row in rows} == {"train"}


@pytest.mark.parametrize("column", ["label", "Labels", "EMOTION", "class", "expression"])
def test_a_column_of_labels_by_another_name_is_read(column: str, tmp_path: Path) -> None:
    text = f"{column},pixels\n3.0,{pixels_text(1)}\nsad,{pixels_text(2)}\n06,{pixels_text(3)}\n"
    assert meaning(write(tmp_path, {"x.csv": text.encode()}) / "x.csv") == {
        1: ("train", 3),
        2: ("train", 4),
        3: ("train", 6),
    }
    pq.write_table(pa.table({"image": [picture(1)], column: [3.0]}), tmp_path / "x.parquet")
    assert meaning(tmp_path / "x.parquet") == {1: ("train", 3)}


@pytest.mark.parametrize("column", ["mood", "y", "klasse", "emotion_id"])
def test_a_table_whose_labels_may_be_in_an_unknown_column_is_refused(column: str, tmp_path: Path) -> None:
    source = write(tmp_path, {"x.csv": f"{column},pixels\n3,{pixels_text(1)}\n".encode()}) / "x.csv"
    with pytest.raises(DataError, match=f"its columns are {column}, pixels; none is called emotion, label"):
        open_source(source)
    pq.write_table(pa.table({"image": [picture(1)], column: [3]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="none is called emotion, label"):
        open_source(tmp_path / "x.parquet")


def test_a_training_table_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"id,pixels\n1,{pixels_text(1)}\n")
    with pytest.raises(DataError, match="none is called emotion"):
        open_source(tmp_path / "train.csv")
    (tmp_path / "train.csv").rename(tmp_path / "test.csv")
    assert meaning(tmp_path / "test.csv") == {1: ("test", None)}


STRAY = {
    "a CSV": ("votes.csv", f"emotion,pixels\n3,{pixels_text(1)}\n".encode()),
    "the official CSV": ("fer2013.csv", f"emotion,pixels,Usage\n3,{pixels_text(1)},Training\n".encode()),
    "a table without a suffix": ("faces", f"emotion,pixels\n3,{pixels_text(1)}\n".encode()),
}


@pytest.mark.parametrize("format", ["folder", "zip"])
@pytest.mark.parametrize("kind", STRAY)
def test_a_table_beside_images_is_not_taken_without_a_word(kind: str, format: str, tmp_path: Path) -> None:
    files = emotions_in("train") | dict([STRAY[kind]])
    source = write(tmp_path / "in", files)
    if format == "zip":
        source = write(tmp_path, {"x.zip": zipped(files)}) / "x.zip"
    with pytest.raises(DataError, match=rf"{STRAY[kind][0]}.*and 7 images.*--format csv or --format {format}"):
        open_source(source)
    assert open_source(source, format=format).total == 7
    assert meaning(source, format="csv") == {1: ("train", 3)}


def test_parquet_beside_images_is_not_taken_without_a_word(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [picture(1)], "label": [3]}), write(tmp_path, emotions_in("train")) / "x.parquet")
    with pytest.raises(DataError, match="--format parquet or --format folder"):
        open_source(tmp_path)


def test_two_names_of_a_folder_are_two_folders(tmp_path: Path) -> None:
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


PERSONS = {
    "below the label": {f"train/{name}/{person}/x.png" for name in EMOTIONS for person in ("ann", "test", "Val")},
    "above the label": {f"train/{person}/{name}/x.png" for name in EMOTIONS for person in ("ann", "test", "Val")},
    "one alone": {f"train/{name}/test/x.png" for name in EMOTIONS},
}


@pytest.mark.parametrize("kind", PERSONS)
def test_a_person_called_like_a_split_overrides_none_without_a_word(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path, dict.fromkeys(sorted(PERSONS[kind]), encoded(np.zeros((8, 8), np.uint8))))
    assert {row["split"] for row in rows_of(source)[0]} == {"train"}
    (note,) = open_source(source).notes
    assert "test" in note and "taken for no splits" in note


def test_prepare_takes_the_options_of_the_command_line(ray_cluster: None, tmp_path: Path) -> None:
    source = tree(tmp_path, ("learn", "check", "prove"), numbers(RAF_DB, 1))
    options = ["--labels", ",".join(RAF_DB), "--splits", "learn=train,check=validation,prove=test"]
    codes = []
    for more in ([], options):
        with pytest.raises(SystemExit) as caught:
            main(["prepare", str(source), str(tmp_path / "out"), *more])
        codes.append(caught.value.code)
    assert codes == [3, 0]
    held = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert {split: info["labels"]["happy"] for split, info in held["splits"].items()} == dict.fromkeys(SPLITS, 3)
    assert any("in the order of --labels: 1 surprise" in note for note in held["notes"])


def test_archives_beside_images_are_named(tmp_path: Path) -> None:
    source = write(tmp_path, emotions_in("train") | {"more/test.zip": zipped(emotions_in("test"))})
    (note,) = open_source(source).notes
    assert "Not read: 1 file such as more/test.zip" in note
    write(tmp_path, {"more/labels.csv": b"name,label"})
    assert "Not read: 2 files such as more/" in open_source(source).notes[0]


@pytest.mark.parametrize("column", ["fold", "phase", "Split Name", "is_train", "purpose"])
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_column_that_seems_to_say_splits_is_not_passed_over(column: str, format: str, tmp_path: Path) -> None:
    values = ["1", "0"] if column == "is_train" else ["train", "test"]
    source = tmp_path / f"x.{format}"
    if format == "csv":
        lines = [f"3,{pixels_text(row)},{value}" for row, value in enumerate(values)]
        source.write_text("\n".join([f"emotion,pixels,{column}", *lines]))
    else:
        pq.write_table(pa.table({"image": [picture(1), picture(2)], "label": [3, 3], column: values}), source)
    with pytest.raises(DataError, match=f"(?i)column {column} .* seems to say splits"):
        open_source(source)


@pytest.mark.parametrize("columns", [("label", "expression"), ("class", "emotion_name"), ("emotion", "label")])
def test_two_columns_that_may_hold_labels_are_refused(columns: tuple[str, str], tmp_path: Path) -> None:
    table = pa.table({"image": [picture(1)], columns[0]: [3], columns[1]: ["sad"]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=f"{columns[0]} and {columns[1]} may each hold the labels"):
        open_source(tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text(f"{columns[0]},{columns[1]},pixels\n3,sad,{pixels_text(1)}\n")
    with pytest.raises(DataError, match=f"{columns[0]} and {columns[1]} may each hold the labels"):
        open_source(tmp_path / "x.csv")


def test_names_of_numbers_count_for_the_files_without_them(tmp_path: Path) -> None:
    names = sorted(EMOTIONS)
    for split, meta in (("train", {"info": {"features": {"label": {"names": names}}}}), ("test", {})):
        table = pa.table({"image": [picture(row) for row in range(7)], "label": list(range(7))})
        table = table.replace_schema_metadata({"huggingface": json.dumps(meta)})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    rows, _ = rows_of(tmp_path)
    assert [EMOTIONS[row["label"]] for row in rows] == names * 2


@pytest.mark.parametrize("persons", [range(1, 8), range(2)])
def test_numbers_at_two_levels_are_refused(persons: range, tmp_path: Path) -> None:
    files = {f"train/{label}/{person}/x.png": picture(9) for label in range(1, 8) for person in persons}
    with pytest.raises(DataError, match="numbers at two levels"):
        open_source(write(tmp_path, files), naming=Naming(order=RAF_DB))


def test_a_person_called_like_an_emotion_is_none_where_others_are_not(tmp_path: Path) -> None:
    files = {f"train/sad/{person}/x.png": picture(9) for person in ("anna", "Joy", "tom")}
    assert {row["label"] for row in rows_of(write(tmp_path, files))[0]} == {4}


def table_text(*labels: int) -> bytes:
    return "\n".join(["emotion,pixels", *(f"{label},{pixels_text(label)}" for label in labels)]).encode()


def test_folders_in_a_zip_say_the_splits_of_tables(tmp_path: Path) -> None:
    for name in ("data.csv", "fer2013.csv"):
        files = {f"train/{name}": table_text(1, 2), f"test/{name}": table_text(3)}
        source = write(tmp_path, {"x.zip": zipped(files)}) / "x.zip"
        assert meaning(source) == {1: ("train", 1), 2: ("train", 2), 3: ("test", 3)}


@pytest.mark.parametrize("names", [("learn", "test"), ("trainval", "test"), ("all", "val", "test")])
def test_tables_of_which_the_unknown_may_be_for_training_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    source = write(tmp_path, {f"{name}.csv": table_text(1) for name in names})
    with pytest.raises(DataError, match=f"--splits '{names[0]}=train'"):
        open_source(source)


@pytest.mark.parametrize("numbers", [range(-1, 6), range(1, 7)])
def test_orders_that_begin_elsewhere_are_refused_in_its_own_form_too(numbers: range, tmp_path: Path) -> None:
    lines = [f"{number},{pixels_text(number % 7)},Training" for number in numbers for _ in range(3)]
    source = write(tmp_path, {"x.csv": "\n".join(["emotion,pixels,Usage", *lines]).encode()}) / "x.csv"
    with pytest.raises(DataError, match="not 0 to 6 in the order of FER-2013"):
        rows_of(source)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"labels": "smlie=happy"}, "no label of .* is so"),
        ({"labels": ",".join(RAF_DB)}, "are no numbers"),
        ({"splits": "tset=validation"}, "nothing in .* is called so"),
    ],
)
def test_what_an_option_says_of_nothing_is_a_wrong_call(
    option: dict[str, str], words: str, ray_cluster: None, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(tree(tmp_path, SPLITS, list(EMOTIONS)), tmp_path / "out", **option)  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value"), [("labels", "1=surprise,01=sad"), ("splits", "a=train,A=test")])
def test_an_option_that_contradicts_itself_is_a_wrong_call(option: str, value: str) -> None:
    with pytest.raises(UsageError, match="there twice"):
        read_naming(**{"labels": None, "splits": None} | {option: value})  # type: ignore[arg-type]


def test_patterns_of_splits_leave_label_folders_alone(tmp_path: Path) -> None:
    source = write(tmp_path, emotions_in("set1", "set2"))
    rows, _ = rows_of(source, naming=read_naming(None, "s*=test"))
    assert {row["split"] for row in rows} == {"test"}
    flat = write(tmp_path / "flat", {f"{name}/x.png": picture(9) for name in EMOTIONS})
    assert {row["split"] for row in rows_of(flat, naming=read_naming(None, "s*=test"))[0]} == {"train"}


def test_of_nested_splits_the_level_that_tells_them_apart_counts(tmp_path: Path) -> None:
    source = write(tmp_path, emotions_in("train/test_session", "test/train_session"))
    assert {(row["id"].split("/")[0], row["split"]) for row in rows_of(source)[0]} == {
        ("train", "train"),
        ("test", "test"),
    }
    wrapped = write(tmp_path / "in", emotions_in("my_test/train", "my_test/val"))
    assert {row["split"] for row in rows_of(wrapped)[0]} == {"train", "validation"}
