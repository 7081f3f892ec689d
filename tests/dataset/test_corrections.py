"""Corrections of labels: what `prepare --corrections` changes, says and refuses."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_made import write_csv

from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError
from fer_ray.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROWS = [(0, "Training"), (1, "Training"), (2, "Training"), (3, "PublicTest"), (4, "PublicTest"), (5, "PrivateTest")]
HEAD = "id,label,proposed,keep\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [(label, np.full((48, 48), 20 + 9 * label, np.uint8), usage) for label, usage in ROWS]
    return write_csv(tmp_path / "fer2013.csv", rows)


def names(dataset: Path, split: str) -> list[str]:
    return [EMOTIONS[label] for label in PreparedDataset(dataset).load(split).labels]


def test_labels_change_and_rows_are_left_out(source: Path, tmp_path: Path) -> None:
    prepare(source, plain := tmp_path / "plain")
    ids = [id for split in ("train", "validation", "test") for id in PreparedDataset(plain).load(split).ids]
    lines = ["angry,Sadness,yes", "disgust,fear,no", "fear,fear,YES", "happy,sad,yes", "sad,sad,no", "surprise,sad,no"]
    (file := tmp_path / "mine.csv").write_text(HEAD + "\n".join(map(",".join, zip(ids, lines, strict=True))))
    info = prepare(source, one := tmp_path / "one", corrections=file).info
    assert (names(one, "train"), names(one, "validation"), names(one, "test")) == (
        ["sad", "fear"],
        ["happy", "sad"],
        ["surprise"],
    )
    assert (info.rejected, info.left_out) == (1, 1)
    assert info.notes[-1] == (
        "--corrections changed the labels of 1 train rows, left out 1 train rows. 3 lines are not of train, and were"
        " not used."
    )
    rejects = pq.read_table(one / "rejects.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in rejects] == [(ids[1], "left out by --corrections")]
    asked = ("train", "validation", "test")
    with pytest.raises(DataError, match=r"absent.csv: can't be read"):
        prepare(source, tmp_path / "two", corrections=tmp_path / "absent.csv", corrected_splits=asked)
    info = prepare(source, two := tmp_path / "two", corrections=file, corrected_splits=asked).info
    assert names(two, "validation") == ["sad"] and "test" not in info.splits
    assert info.notes[-1].endswith(
        "left out 1 train rows, left out 1 validation rows, left out 1 test rows. Figures on"
        " validation or test rows that changed differ from those on the original labels."
    )
    assert info.fingerprint != PreparedDataset(one).info.fingerprint != PreparedDataset(plain).info.fingerprint


def test_an_audit_gives_soft_labels(source: Path, tmp_path: Path) -> None:
    prepare(source, plain := tmp_path / "plain")
    train = PreparedDataset(plain).load("train")
    columns = {f"p_{name}": np.full(3, 0.4 if name == "sad" else 0.1, np.float32) for name in EMOTIONS}
    table = pa.table({"id": train.ids, "label": train.labels.astype(np.int8), **columns})
    pq.write_table(table, file := tmp_path / "audit.parquet")
    info = prepare(source, soft := tmp_path / "soft", corrections=file).info
    own, other = PreparedDataset(soft).load("train"), PreparedDataset(soft).load("validation")
    assert own.soft_labels is not None and other.soft_labels is not None
    np.testing.assert_array_equal(own.labels, train.labels)
    np.testing.assert_allclose(own.soft_labels[0], [0.55, 0.05, 0.05, 0.05, 0.2, 0.05, 0.05], rtol=1e-6)
    np.testing.assert_array_equal(other.soft_labels, np.eye(7)[other.labels])
    assert info.soft_labels and info.notes[-1] == "--corrections changed the soft labels of 3 train rows."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,new\n", "wrong.csv: can't be read as corrections: it has no column proposed, keep"),
        (
            HEAD + "row-0000001,angry,furious,yes\n",
            "row-0000001,angry,furious,yes: label and proposed must be of angry, ",
        ),
        (HEAD + "row-0000001,angry,sad,maybe\n", "maybe: keep must be yes or no"),
        (HEAD + "row-0000001,angry,sad,\n", "row-0000001,angry,sad,: keep must be yes or no"),
        (HEAD + "row-0000001,angry,sad,yes\n" * 2, "row-0000001,angry,sad,yes: this id has an earlier line"),
        (HEAD + "row-9,angry,sad,yes\n", "row-9,angry,sad,yes: the source has no such id. Use the"),
        ("ID;Label; Proposed;KEEP\n\n;;;\nrow-0000001;sad;happy;yes\n", "sad,happy,yes: the source has another label"),
        (HEAD + "".join(f"row-{n},sad,happy,yes\n" for n in range(9, 14)), "and 2 more such line"),
        ("\udcff", "can't be read"),
    ],
)
def test_wrong_corrections_are_refused_and_leave_no_dataset(
    text: str, message: str, source: Path, tmp_path: Path
) -> None:
    (file := tmp_path / "wrong.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        prepare(source, tmp_path / "made", corrections=file)
    assert not (tmp_path / "made").exists()
