"""FER+ votes in place of labels: joined by row number, refused where they don't belong, learnt as shares."""

from pathlib import Path

import numpy as np
import pytest
from inputs import write

from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.prepare import prepare
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.train import train
from fer_ray.training.loop import fit
from fer_ray.training.on_ray.shards import drain, train_dataset
from fer_ray.training.rows import TrainingData

pytestmark = pytest.mark.usefixtures("ray_cluster")

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


def write_csv(folder: Path, count: int = len(VOTES), bad: int | None = None) -> Path:
    images, _ = synthetic_faces(count, seed=0)
    lines = [f"4,{' '.join(map(str, image.reshape(-1)))},{USAGE[row % 8]}" for row, image in enumerate(images)]
    if bad is not None:
        lines[bad] = "4,1 2 3,Training"
    text = "\n\n".join(["emotion,pixels,Usage", *lines])  # blank lines don't count as rows
    return write(folder, {"fer2013.csv": text.encode()}) / "fer2013.csv"


def write_votes(folder: Path, lines: list[str] | None = None, header: str = HEADER) -> Path:
    if lines is None:
        lines = [
            f"{usage},fer.png,{','.join(map(str, votes))}" for usage, (votes, _, _) in zip(USAGE, VOTES, strict=True)
        ]
    return write(folder, {"fer2013new.csv": "\r\n".join([header, *lines]).encode()}) / "fer2013new.csv"


def rows_by_number(dataset: PreparedDataset) -> dict[int, dict]:
    rows = [row for split in dataset.info.splits for row in dataset.table(split).to_pylist()]
    return {int(row["id"].removeprefix("row-")) - 1: row for row in rows}


def test_majority_and_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, votes = write_csv(tmp_path), write_votes(tmp_path)
    plain = prepare(source, tmp_path / "plain").info
    majority = prepare(source, tmp_path / "majority", fer_plus=votes).info
    said = capsys.readouterr().err
    assert "4 rows of FER+ got no label, by the winning choice: 1 contempt, 1 unknown, 1 nf, 1 a tie." in said
    assert "4 of 4 differ from the label in" in said
    soft = prepare(source, tmp_path / "soft", fer_plus=votes, fer_plus_labels="soft").info
    assert len({plain.fingerprint, majority.fingerprint, soft.fingerprint}) == 3
    assert (plain.soft_labels, majority.soft_labels, soft.soft_labels) == (False, False, True)
    assert soft.splits["train"].unlabelled == 4 and any("FER+" in note for note in soft.notes)
    for name in ("majority", "soft"):
        rows = rows_by_number(PreparedDataset(tmp_path / name))
        assert [rows[number]["label"] for number in range(8)] == [label for _, label, _ in VOTES]
    assert "soft_label" not in rows_by_number(PreparedDataset(tmp_path / "majority"))[0]
    for number, (_, _, shares) in enumerate(VOTES):
        expected = None if shares is None else [shares.get(label, 0.0) for label in range(7)]
        assert rows[number]["soft_label"] == (expected and pytest.approx(expected))
    split = PreparedDataset(tmp_path / "soft").load("train")
    assert split.soft_labels is not None and split.soft_labels.shape == (2, 7)
    assert split.soft_labels.dtype == np.float32 and np.allclose(split.soft_labels.sum(1), 1)


def test_columns_by_name_and_rejected_rows_keep_their_place(tmp_path: Path) -> None:
    names = ["NF", "Anger", "DISGUST", "fear", "happiness", "sadness", "surprise", "neutral", "contempt", "unknown"]
    lines = [",".join("9" if position == 1 + row % 7 else "0" for position in range(10)) for row in range(8)]
    votes = write_votes(tmp_path, lines, ",".join(names))
    prepare(write_csv(tmp_path, bad=2), tmp_path / "out", fer_plus=votes)
    rows = rows_by_number(PreparedDataset(tmp_path / "out"))
    assert {number: row["label"] for number, row in rows.items()} == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5, 6: 6, 7: 0}


def line(usage: str, votes: str = "9,0,0,0,0,0,0,0,0,0") -> str:
    return f"{usage},x.png,{votes}"


@pytest.mark.parametrize(
    ("lines", "header", "words"),
    [
        ([line("Training")] * 7, HEADER, "7 rows, .*fer2013.csv 8"),
        ([line("Training")] * 8, HEADER, r"2 row\(s\) have another Usage .* first row 7: train, not validation"),
        ([line("Training", "x,0,0,0,0,0,0,0,0,0")] * 8, HEADER, "row 1: votes 'x'"),
        ([line("Training", "9,0")] * 8, HEADER, r"(?s)row 1: 4 column\(s\), 12 expected.*5 more"),
        ([line("Training", "-1,0,0,0,0,0,0,0,0,0")] * 8, HEADER, "votes '-1'"),
        ([], HEADER.replace("fear", "dread").replace("NF", "none"), "no column of votes for fear, nf"),
        ([], "", "no column of votes"),
    ],
)
def test_votes_that_do_not_belong_are_refused(lines: list[str], header: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        prepare(write_csv(tmp_path), tmp_path / "out", fer_plus=write_votes(tmp_path, lines, header))
    assert "fer2013new.csv" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_wrong_calls(tmp_path: Path) -> None:
    votes = write_votes(tmp_path)
    with pytest.raises(UsageError, match=r"joined by row number.*Give fer2013\.csv"):
        prepare("synthetic:20", tmp_path / "out", fer_plus=votes)
    with pytest.raises(UsageError, match="--fer-plus-labels hard: must be 'majority' or 'soft'"):
        prepare(write_csv(tmp_path), tmp_path / "out", fer_plus=votes, fer_plus_labels="hard")
    with pytest.raises(UsageError, match=r"--fer-plus-labels soft: .*--fer-plus"):
        prepare(write_csv(tmp_path), tmp_path / "out", fer_plus_labels="soft")
    with pytest.raises(DataError, match="no such file"):
        prepare(write_csv(tmp_path), tmp_path / "out", fer_plus=tmp_path / "nowhere.csv")


@pytest.fixture(scope="module")
def soft_dataset(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Return 160 drawn faces, every fourth for validation, whose votes are two thirds happy and one third sad."""
    folder = tmp_path_factory.mktemp("soft")
    write_csv(folder, 160)
    lines = [line(USAGE[row % 8], "0,6,0,3,0,0,0,0,0,0") for row in range(160)]
    prepare(folder / "fer2013.csv", folder / "out", fer_plus=write_votes(folder, lines), fer_plus_labels="soft")
    return PreparedDataset(folder / "out")


SMALL = ["model.name=cnn3", "optimizer.name=adam", "optimizer.learning_rate=2e-3", "training.batch_size=20"]


def test_training_learns_the_shares(soft_dataset: PreparedDataset) -> None:
    """All labels are happy: only the shares tell that sad has a third."""
    data = TrainingData(soft_dataset.load("train"), soft_dataset.load("validation"), soft_dataset.info)
    loss = {}
    for soft in ("true", "false"):
        config = load_config(None, [*SMALL, f"loss.soft_labels={soft}", "loss.label_smoothing=0", "training.epochs=4"])
        history: list[dict] = []
        fit(config, data, lambda metrics, snapshot, history=history: history.append(metrics))
        loss[soft] = history[-1]["train_loss"]
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert loss["true"] == pytest.approx(entropy, abs=0.1) and loss["true"] > entropy - 1e-3
    assert loss["false"] < 0.1


def test_shards_of_ray_train_carry_the_shares(soft_dataset: PreparedDataset) -> None:
    whole = soft_dataset.load("train")
    shard = drain(train_dataset(soft_dataset, 1), soft_dataset, 0, 1)
    assert shard.ids == whole.ids
    np.testing.assert_array_equal(shard.soft_labels, whole.soft_labels)


def test_a_dataset_without_shares_is_refused(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    config = load_config(None, [*SMALL, "loss.soft_labels=true"])
    with pytest.raises(UsageError, match=r"loss.soft_labels = True: .*--fer-plus-labels soft"):
        train(tiny_dataset.path, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
