"""Labels as other data sets write them: one meaning in every format, or an error that names the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from inputs import picture, pixels_text, rows_of, write
from made_sources import AFFECT_NET, MAKERS, MEANING, RAF_DB, csv_file, meaning, numbered, parquet, tree

from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.sources.label_names import NameOptions, parse_name_options
from fer_ray.sources.recognise import open_source
from fer_ray.sources.split_names import SPLITS

NOUNS = ("anger", "disgusted", "fearful", "joy", "sadness", "surprised", "neutrality")
HABITS: dict[str, tuple[tuple[str, ...], list[str], str | None]] = {
    "FER-2013": (("Training", "PublicTest", "PrivateTest"), list(EMOTIONS), None),
    "RAF-DB": (("train", "val", "test"), numbered(RAF_DB, 1), ",".join(RAF_DB)),
    "AffectNet": (("train_set", "val_set", "test_set"), numbered(AFFECT_NET, 0), ",".join((*AFFECT_NET, "contempt"))),
    "FER+": (("FER2013Train", "FER2013Valid", "FER2013Test"), [name.upper() for name in NOUNS], None),
    "numbers as floats": (("trainset", "for validation", "testing"), numbered(EMOTIONS, 0, "{}.0"), ",".join(EMOTIONS)),
    "split and label in one name": (("", "", ""), list(EMOTIONS), None),
    "pairs": (("learn", "dev", "holdout"), [*"tuvwxyz"], "t=angry,u=disgust,v=fear,w=happy,x=sad,y=surprise,z=neutral"),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("habit", HABITS)
def test_habits_by_format(habit: str, make: Callable[[Path, tuple[str, ...], list[str]], Path], tmp_path: Path) -> None:
    splits, labels, option = HABITS[habit]
    if not any(splits) and make in MAKERS[2:]:
        splits = SPLITS  # a table has no folders
    options = parse_name_options(option, "learn=train" if habit == "pairs" else None)
    assert meaning(make(tmp_path, splits, labels), options=options) == MEANING


@pytest.mark.parametrize("numbers", [range(1, 8), range(8), range(-1, 6)])
def test_numbers_that_are_not_in_the_order_of_fer2013_are_refused(numbers: range, tmp_path: Path) -> None:
    labels = [number for number in numbers for _ in range(3)]
    images, names = [picture(row) for row in range(len(labels))], [str(number) for number in numbers]
    floats = [f"{label}.0,{pixels_text(row)},Training" for row, label in enumerate(labels)]
    sources = [
        write(tmp_path / "in", {f"train/{label}/{row}.png": images[row] for row, label in enumerate(labels)}),
        csv_file(tmp_path / "x.csv", "emotion,pixels,Usage", *floats),
        parquet(tmp_path / "a.parquet", image=images, label=labels),
        parquet(tmp_path / "b.parquet", names, image=images, label=[names.index(str(label)) for label in labels]),
    ]
    for source in sources:
        with pytest.raises(DataError, match=r"in the order of FER-2013|an unknown order") as caught:
            rows_of(source)
        assert "RAF-DB, from 1: --labels surprise,fear" in str(caught.value) and str(source) in str(caught.value)


def test_folders_of_numbers_need_an_order(tmp_path: Path) -> None:
    source = write(tmp_path / "a", {f"train/{label}/x.png": picture(label) for label in range(7)})
    with pytest.raises(DataError, match="an unknown order"):
        rows_of(source)
    assert meaning(source, options=parse_name_options(",".join(AFFECT_NET), None))[0] == ("train", 6)
    source = write(tmp_path / "b", {f"train/{label}/x.png": picture(label) for label in range(2, 6)})
    with pytest.raises(DataError, match=r"Give the numbers too: --labels 1=surprise"):
        rows_of(source, options=NameOptions(label_order=RAF_DB))
    assert meaning(source, options=parse_name_options("2=fear,3=disgust,4=happy,5=sad", None))[4] == ("train", 3)


def test_numbers_at_two_levels_are_refused(tmp_path: Path) -> None:
    files = {f"train/{label}/{person}/x.png": picture(9) for label in range(1, 8) for person in range(2)}
    with pytest.raises(DataError, match="numbers at two levels"):
        open_source(write(tmp_path, files), options=NameOptions(label_order=RAF_DB))


@pytest.mark.parametrize(
    ("labels", "splits", "words"),
    [
        ("happy,sad,happy", None, "expected each emotion once"),
        ("happy,sadd,fear", None, r"unknown emotion sadd \(sad\?\)"),
        ("1=happy,2=smile", None, "smile isn't an emotion"),
        ("1=happy,sad", None, "'sad' isn't a pair such as"),
        ("1=surprise,01=sad", None, "given twice"),
        (None, "a=train,A=test", "given twice"),
        (None, "a=learn", "expected train, validation, test"),
        ("smlie=happy", None, "has no such label"),
        (",".join(RAF_DB), None, "aren't numbers"),
        (None, "tset=validation", "no name in .* matches"),
    ],
)
def test_a_wrong_option_is_a_wrong_call(labels: str | None, splits: str | None, words: str, tmp_path: Path) -> None:
    source = tree(tmp_path, SPLITS, list(EMOTIONS))
    with pytest.raises(UsageError, match=words):
        options = parse_name_options(labels, splits)
        rows_of(source, options=options)
        options.require_used("faces")


@pytest.mark.parametrize("name", ["Happi", "7"])
@pytest.mark.parametrize("make", MAKERS)
def test_lost_classes(make: Callable[[Path, tuple[str, ...], list[str]], Path], name: str, tmp_path: Path) -> None:
    labels = [name if emotion == "happy" else emotion for emotion in EMOTIONS]
    source = make(tmp_path, ("train", "val", "test"), labels)
    words = f"train has no row of happy.*{name.lower()} 3.*=(happy|EMOTION)'.*--allow-unknown"
    is_number = name == "7" and make in MAKERS[2:]
    with pytest.raises(DataError, match="its labels are the numbers 7" if is_number else words):
        rows_of(source, options=NameOptions())
    if not is_number:
        rows, _ = rows_of(source, options=NameOptions(allow_unknown=True))
        assert sum(row["reason"] is not None for row in rows) == 9
        assert 3 in {label for _, label in meaning(source, options=parse_name_options(f"{name}=happy", None)).values()}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["emotion_id"], "none is called emotion, label"),
        (["emotion", "label"], "emotion and label may each hold the labels"),
    ],
)
def test_tables_with_an_unclear_column_of_labels_are_refused(columns: list[str], words: str, tmp_path: Path) -> None:
    lines = ",".join("3" for _ in columns)
    sources = [
        csv_file(tmp_path / "x.csv", f"{','.join(columns)},pixels", f"{lines},{pixels_text(1)}"),
        parquet(tmp_path / "x.parquet", image=[picture(1)], **{column: [3] for column in columns}),
    ]
    for source in sources:
        with pytest.raises(DataError, match=words):
            open_source(source)


def test_a_column_of_labels_by_another_name_is_read(tmp_path: Path) -> None:
    lines = [f"3.0,{pixels_text(1)}", f"sad,{pixels_text(2)}", f"06,{pixels_text(3)}"]
    expected = {1: ("train", 3), 2: ("train", 4), 3: ("train", 6)}
    assert meaning(csv_file(tmp_path / "x.csv", "Labels,pixels", *lines)) == expected


def test_a_table_without_labels_is_for_the_test_only(tmp_path: Path) -> None:
    source = csv_file(tmp_path / "train.csv", "id,pixels", f"1,{pixels_text(1)}")
    with pytest.raises(DataError, match="none is called emotion"):
        open_source(source)
    assert meaning(source.rename(tmp_path / "test.csv")) == {1: ("test", None)}
    source = parquet(tmp_path / "x.parquet", image=[picture(1)])
    (note,) = open_source(source).notes
    assert "unlabelled" in note and meaning(source) == {1: ("test", None)}


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["3", "Happiness", " sad ", None, ""], None, [3, 3, 4, None, None]),
        (pa.array(["happy", "sad"]).dictionary_encode(), None, [3, 4]),
        ([3.0, float("nan"), 2.5], None, [3, None, "emotion '2.5'"]),
        ([0, 1, 2, -1, 9], ["neutral", "contempt", "5"], [6, "emotion 'contempt'", 5, None, "label 9"]),
        ([0.0, 2.0, -1.0], ["neutral", "contempt", "joy"], [6, 3, None]),
    ],
)
def test_labels_of_any_type(labels: Any, names: list[str] | None, expected: Any, tmp_path: Path) -> None:
    rows, _ = rows_of(parquet(tmp_path / "x.parquet", names, image=[picture(1)] * len(labels), label=labels))
    for row, label in zip(rows, expected, strict=True):
        assert label in row["reason"] if isinstance(label, str) else (row["label"], row["reason"]) == (label, None)


def test_a_further_class_is_left_out_and_a_person_called_like_an_emotion_is_no_label(tmp_path: Path) -> None:
    files = {f"train/{name}/{person}/x.png": picture(9) for name in EMOTIONS for person in ("anna", "Joy", "tom")}
    rows, _ = rows_of(write(tmp_path, files | {"train/contempt/x.png": picture(1)}), options=NameOptions())
    assert [row["id"] for row in rows if row["reason"]] == ["train/contempt/x.png"]
    assert {row["label"] for row in rows if "/sad/" in row["id"]} == {4}
