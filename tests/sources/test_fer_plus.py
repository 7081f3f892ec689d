"""FER+ votes in place of labels: joined by row number, and refused where they don't belong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inputs import write
from pyarrow.parquet import read_table

from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.prepare import prepare
from fer_ray.sources.fer_plus import read_votes
from fer_ray.sources.synthetic import synthetic_faces

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
VOTES = [  # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
    ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], 6, {6: 0.6, 3: 0.4}),
    ([0, 0, 1, 0, 7, 0, 0, 2, 0, 0], 0, {0: 7 / 8, 5: 1 / 8}),
    ([1, 0, 0, 0, 0, 0, 0, 9, 0, 0], None, {6: 1.0}),  # contempt wins
    ([5, 0, 0, 5, 0, 0, 0, 0, 0, 0], None, {6: 0.5, 4: 0.5}),  # a tie
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None, None),  # no face
    ([0, 0, 0, 1, 0, 3, 2, 0, 4, 0], None, {4: 1 / 6, 1: 3 / 6, 2: 2 / 6}),  # unknown wins
    ([0, 0, 0, 1, 0, 3, 2, 0, 0, 0], 1, {4: 1 / 6, 1: 3 / 6, 2: 2 / 6}),
    ([0, 9, 0, 0, 0, 0, 0, 0, 1, 0], 3, {3: 1.0}),
]
USAGE = ["Training"] * 6 + ["PublicTest"] * 2


def write_faces(folder: Path, bad: int | None = None) -> Path:
    images, _ = synthetic_faces(len(VOTES), seed=0)
    lines = [f"4,{' '.join(map(str, image.reshape(-1)))},{USAGE[row]}" for row, image in enumerate(images)]
    if bad is not None:
        lines[bad] = f"4,1 2 3,{USAGE[bad]}"
    text = "\n\n".join(["emotion,pixels,Usage", *lines])  # blank lines don't count as rows
    return write(folder, {"fer2013.csv": text.encode()}) / "fer2013.csv"


def write_votes(folder: Path, lines: list[str] | None = None, header: str = HEADER) -> Path:
    if lines is None:
        lines = [line(usage, ",".join(map(str, votes))) for usage, (votes, _, _) in zip(USAGE, VOTES, strict=True)]
    return write(folder, {"fer2013new.csv": "\r\n".join([header, *lines]).encode()}) / "fer2013new.csv"


def line(usage: str, votes: str = "9,0,0,0,0,0,0,0,0,0") -> str:
    return f"{usage},x.png,{votes}"


def test_votes_replace_labels(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, votes = write_faces(tmp_path, bad=1), write_votes(tmp_path)
    info = prepare(source, tmp_path / "out", fer_plus=votes, fer_plus_labels="soft").info
    said = capsys.readouterr().err
    assert "4 rows of FER+ got no label, by the winning choice: 1 contempt, 1 unknown, 1 nf, 1 a tie." in said
    assert "3 of 3 differ from the label in" in said and any("FER+" in note for note in info.notes)
    assert info.soft_labels and info.splits["train"].unlabelled == 4
    dataset = PreparedDataset(tmp_path / "out")
    rows = {int(row["id"][-1]) - 1: row for name in info.splits for row in read_table(dataset.files(name)).to_pylist()}
    assert sorted(rows) == [0, *range(2, 8)]  # a rejected row keeps its place
    for number, row in rows.items():
        _, label, shares = VOTES[number]
        wanted = None if shares is None else pytest.approx([shares.get(emotion, 0.0) for emotion in range(7)])
        assert (row["label"], row["soft_label"]) == (label, wanted)
    split = dataset.load("train")
    assert split.soft_labels is not None and split.soft_labels.dtype == np.float32
    assert len(split) == 1 and np.allclose(split.soft_labels.sum(1), 1)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    names = ["NF", "Anger", "DISGUST", "fear", "happiness", "sadness", "surprise", "neutral", "contempt", "unknown"]
    lines = [",".join("9" if position == 1 + row else "0" for position in range(10)) for row in range(7)]
    assert read_votes(write_votes(tmp_path, lines, ",".join(names))).labels().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("lines", "header", "words"),
    [
        ([line("Training", "x,0,0,0,0,0,0,0,0,0")] * 8, HEADER, "row 1: votes 'x'"),
        ([line("Training", "9,0")] * 8, HEADER, r"(?s)row 1: 4 column\(s\), 12 expected.*5 more"),
        ([line("Training", "-1,0,0,0,0,0,0,0,0,0")] * 8, HEADER, "votes '-1'"),
        ([], HEADER.replace("fear", "dread").replace("NF", "none"), "no column of votes for fear, nf"),
    ],
)
def test_a_file_that_holds_no_votes_is_refused(lines: list[str], header: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_votes(write_votes(tmp_path, lines, header))
    assert "fer2013new.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "options", "error", "words"),
    [
        ([line("Training")] * 7, {}, DataError, "7 rows, .*fer2013.csv 8"),
        ([line("Training")] * 8, {}, DataError, r"2 row\(s\) have another Usage .* first row 7: train, not validation"),
        ([], {"source": "synthetic:20"}, UsageError, r"joined by row number.*Give fer2013\.csv"),
        ([], {"fer_plus": None, "fer_plus_labels": "soft"}, UsageError, r"--fer-plus-labels soft: .*--fer-plus"),
        ([], {"fer_plus": Path("nowhere.csv")}, DataError, "no such file"),
    ],
)
def test_votes_that_do_not_belong_to_the_source_are_refused(
    lines: list[str], options: dict[str, Any], error: type[Exception], words: str, ray_cluster: None, tmp_path: Path
) -> None:
    call = {"source": write_faces(tmp_path), "fer_plus": write_votes(tmp_path, lines)} | options
    with pytest.raises(error, match=words):
        prepare(dest=tmp_path / "out", **call)
    assert not (tmp_path / "out").exists()
