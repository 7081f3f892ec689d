"""Stage prepare, end to end: what is in the dataset, what is said, and what is left when something goes wrong."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets_made import hashes, write_csv

from fer_ray.dataset.store import PreparedDataset, schema
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.images.decode import resize
from fer_ray.prepare import prepare
from fer_ray.sources.synthetic import synthetic_faces

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_real_images_give_the_counts_of_fer2013(
    fer2013_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = prepare(fer2013_zip, tmp_path / "fer", near_duplicates=True).info
    assert list(info.splits) == ["train", "validation"]
    train, validation = info.splits["train"], info.splits["validation"]
    assert list(train.labels.values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert list(validation.labels.values()) == [467, 56, 496, 895, 653, 415, 607]
    assert (train.rows, validation.rows, info.rejected) == (28709, 3589, 0)
    assert (train.leaked, validation.leaked) == (0, 280)
    assert (train.flat, validation.flat) == (11, 1)
    assert any("No test split" in note for note in info.notes)
    printed = capsys.readouterr()
    assert "28,709" in printed.out
    (leaked,) = [line for line in printed.out.splitlines() if line.startswith("exact copies of a train image")]
    assert "280" in leaked
    assert "No test split" in printed.err
    pictures = {split: decode_all(fer2013_zip, split) for split in ("Training", "PublicTest")}
    assert {split: len(named) for split, named in pictures.items()} == {"Training": 28709, "PublicTest": 3589}
    known = {picture.tobytes() for picture in pictures["Training"].values()}
    assert sum(picture.tobytes() in known for picture in pictures["PublicTest"].values()) == 280
    distinct = known | {picture.tobytes() for picture in pictures["PublicTest"].values()}
    assert train.duplicates == 28709 - len(known)
    assert train.duplicates + validation.duplicates == 28709 + 3589 - len(distinct)
    dataset = PreparedDataset(tmp_path / "fer")
    split = dataset.load("validation")
    assert split.leaked.sum() == 280
    images = dict(zip(split.ids, split.images, strict=True))
    assert images.keys() == pictures["PublicTest"].keys()
    assert all(np.array_equal(image, pictures["PublicTest"][name]) for name, image in images.items())
    flags = dataset.table("validation", ["id", "flags"]).to_pylist()
    assert [Path(row["id"]).stem for row in flags if "flat" in row["flags"]] == ["PublicTest_5543497"]


def decode_all(archive: Path, split: str) -> dict[str, np.ndarray]:
    """Read the images of a split of FER-2013 in the plainest way, by path: two names stand for two images each."""
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if Path(name).name.startswith(split)]
        return {name: cv2.imdecode(np.frombuffer(opened.read(name), np.uint8), 0) for name in names}


def test_the_dataset_is_what_the_store_documents(tiny_dataset: PreparedDataset) -> None:
    info = tiny_dataset.info
    assert {split: held.rows for split, held in info.splits.items()} == {"train": 570, "validation": 71, "test": 71}
    drawn, labels = synthetic_faces(712, seed=0)
    images = np.stack([resize(image, 24) for image in drawn])
    train = np.arange(712) % 10 < 8
    split = tiny_dataset.load("train")
    np.testing.assert_array_equal(split.images, images[train])
    np.testing.assert_array_equal(split.labels, labels[train])
    assert info.mean == pytest.approx(images[train].mean() / 255)
    assert info.std == pytest.approx(images[train].std() / 255)
    for name in info.splits:
        assert all(pq.read_schema(file).equals(schema(24)) for file in tiny_dataset.files(name))
    figures = {"classes.png", "samples.png", "mean_faces.png"}  # no two faces are the same
    for figure in figures:
        assert cv2.imread(str(tiny_dataset.path / figure)).shape[0] > 200
    assert len(pq.read_table(tiny_dataset.path / "rejects.parquet")) == 0
    kept = {"dataset.json", "rejects.parquet", "provenance.json", "train", "validation", "test"}
    assert {file.name for file in tiny_dataset.path.iterdir()} == kept | figures


def test_two_runs_give_the_same_bytes(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    prepare("synthetic:712", tmp_path / "again", size=24)
    assert hashes(tmp_path / "again") == hashes(tiny_dataset.path)
    other = prepare("synthetic:712", tmp_path / "other", size=24, seed=1).info
    assert other.fingerprint != tiny_dataset.info.fingerprint


def test_duplicates_leaks_conflicts_and_flat_images(tmp_path: Path) -> None:
    images, _ = synthetic_faces(4, seed=0)
    flat = np.full((48, 48), 9, np.uint8)
    rows = [
        (3, images[0], "PrivateTest"),  # in train below, under another label
        (0, images[1], "PublicTest"),
        (3, images[1], "Training"),
        (2, images[0], "Training"),
        (2, images[0], "Training"),
        (1, images[2], "PublicTest"),
        (1, images[2], "PrivateTest"),  # in validation, but not in train
        (6, flat, "Training"),
        (5, images[3], "Training"),
    ]
    prepare(write_csv(tmp_path / "x.csv", rows), tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    found = {
        row["id"][-1]: (row["duplicate_of"] and row["duplicate_of"][-1], row["flags"])
        for split in dataset.info.splits
        for row in dataset.table(split).to_pylist()
    }
    assert found == {
        "3": (None, ["conflict"]),
        "4": (None, ["conflict"]),
        "5": ("4", ["conflict"]),
        "8": (None, ["flat"]),
        "9": (None, []),
        "2": ("3", ["leaked", "conflict"]),
        "6": (None, []),
        "1": ("4", ["leaked", "conflict"]),
        "7": ("6", []),
    }
    test = dataset.info.splits["test"]
    assert (test.rows, test.duplicates, test.leaked, test.conflicts, test.flat) == (2, 2, 1, 1, 0)
    assert (test.near_duplicates, test.near_leaked) == (None, None)
    assert set(dataset.table("test")["near_duplicate_of"].to_pylist()) == {None}
    assert (tmp_path / "out" / "duplicates.png").is_file()


def test_near_duplicates_are_flagged_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, _ = synthetic_faces(3, seed=0)
    lighter = np.clip(images.astype(int) + 1, 0, 255)
    rows = [(3, lighter[0], "PublicTest"), (0, images[0], "Training"), (1, images[1], "Training")]
    rows += [(1, images[2], "PrivateTest"), (1, lighter[2], "PrivateTest")]
    info = prepare(write_csv(tmp_path / "x.csv", rows), tmp_path / "out", near_duplicates=True).info
    dataset = PreparedDataset(tmp_path / "out")
    found = {
        row["id"][-1]: (row["near_duplicate_of"] and row["near_duplicate_of"][-1], row["flags"])
        for split in dataset.info.splits
        for row in dataset.table(split).to_pylist()
    }
    assert found == {
        "1": ("2", ["near_duplicate", "near_leaked"]),
        "2": (None, []),
        "3": (None, []),
        "4": (None, []),
        "5": ("4", ["near_duplicate"]),
    }
    assert (info.splits["validation"].near_duplicates, info.splits["validation"].near_leaked) == (1, 1)
    assert (info.splits["test"].near_duplicates, info.splits["test"].near_leaked) == (1, 0)
    assert any("differ in at most" in note for note in info.notes)
    assert "nearly equal to a train image" in capsys.readouterr().out


def test_dropped_leaks_are_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, _ = synthetic_faces(5, seed=0)
    rows = [(number, image, "Training") for number, image in enumerate(images)]
    source = write_csv(tmp_path / "x.csv", [*rows, (0, images[0], "PublicTest"), (4, images[3], "PrivateTest")])
    kept = prepare(source, tmp_path / "kept").info
    assert (kept.splits["train"].rows, kept.dropped_leaks, kept.splits["test"].leaked) == (5, 0, 1)
    capsys.readouterr()
    info = prepare(source, tmp_path / "out", drop_leaks=True).info
    train = info.splits["train"]
    assert (train.rows, train.labels["angry"], train.conflicts) == (3, 0, 0)
    assert (info.rejected, info.dropped_leaks) == (2, 2)
    assert [info.splits[split].leaked for split in ("validation", "test")] == [0, 0]
    assert info.mean == pytest.approx(images[[1, 2, 4]].mean() / 255)
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(row["id"], row["path"]) for row in rejects] == [
        ("row-0000001", str(source)),
        ("row-0000004", str(source)),
    ]
    assert "validation as row-0000006" in rejects[0]["reason"] and "test as row-0000007" in rejects[1]["reason"]
    assert PreparedDataset(tmp_path / "out").load("train").ids == ["row-0000002", "row-0000003", "row-0000005"]
    printed = capsys.readouterr()
    assert "2 rejected, 2 of them by --drop-leaks" in printed.out
    assert "2 of 5 training images were left out" in printed.err
    assert any("2 of 5 training images were left out" in note for note in info.notes)


def test_dropping_every_training_row_is_bad_data(tmp_path: Path) -> None:
    image = synthetic_faces(1, seed=0)[0][0]
    source = write_csv(tmp_path / "x.csv", [(0, image, "Training"), (0, image, "PublicTest")])
    with pytest.raises(DataError, match="--drop-leaks would leave no training row"):
        prepare(source, tmp_path / "out", drop_leaks=True)


def test_validation_is_taken_from_train_stratified_with_copies_together(tmp_path: Path) -> None:
    images, labels = synthetic_faces(300, seed=0)
    rows = [(int(label), image, "Training") for label, image in zip(labels, images, strict=True)]
    source = write_csv(tmp_path / "x.csv", rows + rows[:60])
    first = prepare(source, tmp_path / "a", validation_fraction=0.2)
    train, validation = first.info.splits["train"], first.info.splits["validation"]
    assert train.rows + validation.rows == 360
    for name in EMOTIONS:
        share = validation.labels[name] / (validation.labels[name] + train.labels[name])
        assert share == pytest.approx(0.2, abs=0.03)
    assert validation.leaked == 0
    assert "test" not in first.info.splits
    assert any("set aside" in note for note in first.info.notes)
    other_seed = prepare(source, tmp_path / "b", validation_fraction=0.2, seed=1)
    ids = [set(PreparedDataset(result.path).load("validation").ids) for result in (first, other_seed)]
    assert ids[0] != ids[1]


def test_validation_fraction_zero_leaves_train_alone(tmp_path: Path) -> None:
    images, labels = synthetic_faces(20, seed=0)
    rows = [(int(label), image, "Training") for label, image in zip(labels, images, strict=True)]
    info = prepare(write_csv(tmp_path / "x.csv", rows), tmp_path / "a", validation_fraction=0).info
    assert list(info.splits) == ["train"] and info.splits["train"].rows == 20
    assert any("No validation split" in note for note in info.notes)


def test_what_cannot_be_used_is_in_rejects_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = synthetic_faces(1, seed=0)[0][0]
    source = write_csv(tmp_path / "x.csv", [(0, image, "Training"), (9, image, "Training"), (1, image[:9], "Training")])
    info = prepare(source, tmp_path / "out", validation_fraction=0).info
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(row["id"], row["path"]) for row in rejects] == [
        ("row-0000002", str(source)),
        ("row-0000003", str(source)),
    ]
    assert "'9'" in rejects[0]["reason"] and "432" in rejects[1]["reason"]
    assert info.rejected == 2 and "2 rejected" in capsys.readouterr().out


def test_a_tree_of_colour_images_of_any_size(tmp_path: Path) -> None:
    images, labels = synthetic_faces(30, seed=0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "in" / "faces" / ("training" if number < 20 else "val") / EMOTIONS[label].upper()
        folder.mkdir(parents=True, exist_ok=True)
        large = cv2.applyColorMap(cv2.resize(image, (150, 200)), cv2.COLORMAP_OCEAN)
        cv2.imwrite(str(folder / f"{number}.png"), large)
    info = prepare(tmp_path / "in", tmp_path / "out", size=64).info
    dataset = PreparedDataset(tmp_path / "out")
    assert {split: held.rows for split, held in info.splits.items()} == {"train": 20, "validation": 10}
    assert dataset.load("train").images.shape == (20, 64, 64)
    table = dataset.table("train")
    assert set(table["width"].to_pylist()) == {150} and set(table["height"].to_pylist()) == {200}
