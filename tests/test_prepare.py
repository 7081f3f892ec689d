"""Stage prepare, end to end: what is in the dataset, what is said, and what is left when something goes wrong."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from datasets_made import hashes, write_csv

import fer_ray.prepare
from fer_ray.cli import main
from fer_ray.dataset.store import PreparedDataset, schema
from fer_ray.errors import DataError, UsageError
from fer_ray.images.decode import resize
from fer_ray.prepare import prepare
from fer_ray.sources.synthetic import synthetic_faces

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_real_images_count_as_fer2013(fer2013_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = prepare(fer2013_zip, tmp_path / "fer").info
    train, validation = info.splits["train"], info.splits["validation"]
    assert list(train.labels.values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert list(validation.labels.values()) == [467, 56, 496, 895, 653, 415, 607]
    assert (train.rows, validation.rows, info.rejected) == (28709, 3589, 0)
    assert (train.duplicates, validation.duplicates, train.leaked, validation.leaked) == (1236, 296, 0, 280)
    assert (train.flat, validation.flat) == (11, 1)
    assert list(info.splits) == ["train", "validation"] and any("No test split" in note for note in info.notes)
    printed = capsys.readouterr()
    assert "28,709" in printed.out and "No test split" in printed.err
    split = PreparedDataset(tmp_path / "fer").load("validation")
    assert split.leaked.sum() == 280
    with zipfile.ZipFile(fer2013_zip) as archive:
        for row in range(0, len(split), 100):
            expected = cv2.imdecode(np.frombuffer(archive.read(split.ids[row]), np.uint8), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(split.images[row], expected)


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
    assert cv2.imread(str(tiny_dataset.path / "samples.png")).shape[0] > 200
    kept = {"dataset.json", "rejects.parquet", "provenance.json", "train", "validation", "test"}
    assert {file.name for file in tiny_dataset.path.iterdir()} == kept | {"classes.png", "samples.png"}


def test_flaws_leaks_and_rejects_are_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, _ = synthetic_faces(6, seed=0)
    lighter = np.clip(images.astype(int) + 1, 0, 255)
    rows = [(number, image, "Training") for number, image in enumerate(images)]
    rows += [(0, images[0], "PublicTest"), (4, images[3], "PrivateTest"), (1, lighter[1], "PrivateTest")]
    rows += [(9, images[0], "Training"), (1, images[0][:9], "Training"), (2, images[2], "Training")]
    source = write_csv(tmp_path / "x.csv", rows)
    info = prepare(source, tmp_path / "out", drop_leaks=True, near_duplicates=True).info
    train, test = info.splits["train"], info.splits["test"]
    assert (train.rows, train.labels["angry"], train.conflicts, info.rejected, info.left_out) == (5, 0, 0, 4, 2)
    assert (test.rows, test.leaked, test.near_duplicates, test.near_leaked) == (2, 0, 1, 1)
    assert info.mean == pytest.approx(images[[1, 2, 2, 4, 5]].mean() / 255)
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert {row["path"] for row in rejects} == {str(source)}
    reasons = {int(row["id"][-2:]): row["reason"] for row in rejects}
    expected = {10: "'9'", 11: "432", 1: "validation as row-0000007", 4: "test as row-0000008"}
    assert reasons.keys() == expected.keys() and all(words in reasons[row] for row, words in expected.items())
    dataset = PreparedDataset(tmp_path / "out")
    assert dataset.load("train").ids == [f"row-{number:07}" for number in (2, 3, 5, 6, 12)]
    (near,) = [row for row in pq.read_table(dataset.files("test")).to_pylist() if row["near_duplicate_of"]]
    assert (near["near_duplicate_of"], near["flags"]) == ("row-0000002", ["near_duplicate", "near_leaked"])
    printed = capsys.readouterr()
    assert "4 rejected, 2 of them left out by request" in printed.out
    assert "2 of 7 training images were left out" in printed.err
    assert any("2 of 7 training images were left out" in note for note in info.notes)


def test_wrong_calls_and_sources_of_no_use_are_refused(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    image, leak = synthetic_faces(1, seed=0)[0][0], {"drop_leaks": True}
    (tmp_path / "sources").mkdir()
    unknown = write_csv(tmp_path / "sources" / "a.csv", [(-1, image, "Training")])
    leaked = write_csv(tmp_path / "sources" / "b.csv", [(0, image, "Training"), (0, image, "PublicTest")])
    small = {"size": 12, "near_duplicates": True}
    refused: list[tuple[object, dict[str, object], type[Exception], str]] = [
        (unknown, {}, DataError, r"none of its 1 row.*emotion '-1'"),
        (leaked, leak, DataError, "--drop-leaks would leave no training row"),
        (tiny_dataset.path, {}, DataError, r"prepared dataset already.*train --dataset"),
        ("synthetic:20", small, UsageError, r"--near-duplicates with --size 12: .* 16 pixels"),
        ("synthetic:20", {"size": 4, "validation_fraction": 0.9}, UsageError, r"(?s)--size 4.*--validation-fraction"),
    ]
    for source, options, error, words in refused:
        with pytest.raises(error, match=words):
            prepare(source, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_errors_in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "x.csv", [(0, np.zeros((48, 48), int), "Training")])
    opened = fer_ray.prepare.open_source(source)

    def vanish(*_: object) -> object:
        source.unlink(missing_ok=True)
        return opened

    monkeypatch.setattr(fer_ray.prepare, "open_source", vanish)
    with pytest.raises(SystemExit) as caught:
        main(["prepare", str(source), str(tmp_path / "out")])
    assert caught.value.code == 3
    assert "every node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


KILLED_AT = {
    "reading": ("fer_ray.dataset.assemble:Spool.add", 2),
    "writing": ("pyarrow.parquet:ParquetWriter.write_table", 2),
    "drawing": ("matplotlib.figure:Figure.savefig", 2),
    "after the last write": ("pathlib:Path.rename", 1),
}
KILLED = """
import os, pkgutil, signal, sys
from fer_ray.prepare import prepare

target, last, source, dest = sys.argv[1:]
owner, name = target.rsplit(".", 1)
owner, calls = pkgutil.resolve_name(owner), 0
real = getattr(owner, name)

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

setattr(owner, name, counted)
prepare(source, dest, size=24)
"""


@pytest.mark.slow
def test_killed_at_any_point_a_rerun_gives_the_same_dataset(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    dest, partial = tmp_path / "out", tmp_path / ".out.partial"
    for moment, (target, calls) in KILLED_AT.items():
        command = [sys.executable, "-c", KILLED, target, str(calls), "synthetic:712", str(dest)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, f"{moment}: {done.stderr}"
        assert {path.name for path in tmp_path.iterdir()} == {dest.name, partial.name}, moment
        assert (partial / "dataset.json").exists() == (moment == "after the last write"), moment
    prepare("synthetic:712", dest, size=24)
    assert list(tmp_path.iterdir()) == [dest]
    assert hashes(dest) == hashes(tiny_dataset.path)
