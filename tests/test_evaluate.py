"""The evaluate stage: figures against a hand-worked case, leaked rows, label order, files and wrong calls."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fer_ray.config import Config, ModelConfig
from fer_ray.data.store import DATASET_FILE, PreparedDataset
from fer_ray.emotions import EMOTIONS, csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import describe, evaluate
from fer_ray.learning.checkpoint import CheckpointInfo, save_checkpoint
from fer_ray.learning.evaluation import Scores, TtaScores, read_evaluation
from fer_ray.learning.predictor import Predictor
from fer_ray.models import build

ALPHABETICAL = tuple(sorted(EMOTIONS))


def write_checkpoint(
    folder: Path, data: PreparedDataset, names: tuple[str, ...] = EMOTIONS, size: int | None = None
) -> Path:
    """Write an untrained network whose outputs stand in the order of ``names``: the same one under each order."""
    side = size or data.info.size
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="cnn3"))
    weights = build(config.model, side).state_dict()
    *_, kernel, bias = weights  # of the last layer
    order = [EMOTIONS.index(name) for name in names]
    # Scaled, so that predictions differ between images.
    weights |= {kernel: 500 * weights[kernel][order], bias: weights[bias][order]}
    info = CheckpointInfo(
        config=config,
        label_names=names,
        mean=data.info.mean,
        std=data.info.std,
        size=side,
        epoch=1,
        metrics={},
        dataset_fingerprint=data.info.fingerprint,
    )
    save_checkpoint(folder, weights, info)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best", tiny_dataset)


def test_csv_order() -> None:
    assert csv_order(EMOTIONS) == list(range(7))
    assert [ALPHABETICAL[i] for i in csv_order(ALPHABETICAL)] == list(EMOTIONS)
    for names in (EMOTIONS[:6], (*EMOTIONS[:6], "bored"), (*EMOTIONS[:6], "angry")):
        with pytest.raises(DataError, match="in any order"):
            csv_order(names)


def test_files(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    result = evaluate(checkpoint, tiny_dataset.path, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pages = {"report.html", "model_card.md", "provenance.json"}
    assert names == {"metrics.json", "predictions.parquet", "confusion.png", "samples.parquet"} | pages
    assert read_evaluation(tmp_path / "out") == result.evaluation
    raw = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert raw["split"] == "test"
    assert list(raw["tta"]) == ["none", "flip"]
    assert set(raw["tta"]["none"]) == set(TtaScores.model_fields)
    assert set(raw["tta"]["none"]["official"]) == set(Scores.model_fields)

    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    probabilities = [f"p_{name}" for name in EMOTIONS]
    assert list(rows) == ["id", "label", "predicted", "confidence", *probabilities, "tta_std", "leaked"]
    split = tiny_dataset.load("test")
    assert rows["id"] == split.ids
    table = np.array([rows[name] for name in probabilities]).T
    expected = Predictor(checkpoint, "flip").predict(split.images)
    np.testing.assert_allclose(table, expected.probabilities, atol=1e-5)
    assert rows["predicted"] == table.argmax(axis=1).tolist()
    assert rows["confidence"] == table.max(axis=1).tolist()
    assert result.scores.accuracy == pytest.approx(np.mean(np.equal(rows["label"], rows["predicted"])))
    assert f"{result.scores.accuracy:.2%} (" in describe(result.evaluation)


def test_order_of_a_checkpoints_labels_changes_nothing(
    checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "alphabetical", tiny_dataset, ALPHABETICAL)
    tables = []
    for number, folder in enumerate((checkpoint, other)):
        result = evaluate(folder, tiny_dataset.path, tmp_path / str(number), tta=["none"])
        tables.append(pq.read_table(result.path / "predictions.parquet").to_pandas())
    assert len(set(tables[0]["predicted"])) > 2
    assert tables[0]["predicted"].tolist() == tables[1]["predicted"].tolist()
    np.testing.assert_allclose(tables[0].filter(like="p_"), tables[1].filter(like="p_"), atol=1e-5)


def test_leaked_rows_are_counted_apart(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    dataset = copy_with_leaks(tiny_dataset, tmp_path / "leaky", leaked=10)
    result = evaluate(checkpoint, dataset, tmp_path / "out", tta=["none"])
    rows = pq.read_table(result.path / "predictions.parquet").to_pandas()
    measured, kept = result.evaluation.tta["none"], rows[~rows["leaked"]]
    assert result.evaluation.leaked_rows == 10
    assert measured.official.rows == len(rows)
    assert measured.without_leaked is not None
    assert measured.without_leaked.rows == len(rows) - 10
    assert measured.without_leaked.accuracy == pytest.approx((kept["label"] == kept["predicted"]).mean())
    assert "without leaked" in describe(result.evaluation)

    everything = copy_with_leaks(tiny_dataset, tmp_path / "all", leaked=len(rows))
    result = evaluate(checkpoint, everything, tmp_path / "out2", tta=["none"])
    assert result.evaluation.tta["none"].without_leaked is None


def copy_with_leaks(data: PreparedDataset, folder: Path, leaked: int) -> Path:
    shutil.copytree(data.path, folder)
    (file,) = (folder / "test").glob("*.parquet")
    table = pq.read_table(file)
    flags = [["leaked"] if row < leaked else [] for row in range(len(table))]
    column = table.schema.get_field_index("flags")
    pq.write_table(table.set_column(column, table.schema.field(column), [flags]), file)
    return folder


def test_validation_where_there_is_no_test(
    checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "data"
    shutil.copytree(tiny_dataset.path, dataset)
    description = json.loads((dataset / DATASET_FILE).read_text())
    del description["splits"]["test"]
    (dataset / DATASET_FILE).write_text(json.dumps(description))
    result = evaluate(checkpoint, dataset, tmp_path / "out", tta=["none"])
    assert result.evaluation.split == "validation"
    assert "has no test split: measuring on validation" in capsys.readouterr().err
    assert any("no test figures" in note for note in result.evaluation.notes)
    with pytest.raises(UsageError, match="It has train, validation"):
        evaluate(checkpoint, dataset, tmp_path / "out2", split="test")
    assert not (tmp_path / "out2").exists()


def test_wrong_calls(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as wrong_tta:
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=["flop", "nine"])
    assert len(wrong_tta.value.problems) == 2
    assert "Did you mean 'flip'?" in wrong_tta.value.problems[0]
    with pytest.raises(UsageError, match="none given"):
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=[])
    with pytest.raises(UsageError, match="in use"):
        evaluate(checkpoint, tiny_dataset.path, tiny_dataset.path)
    small = write_checkpoint(tmp_path / "small", tiny_dataset, size=24)
    with pytest.raises(DataError, match="--size 24"):
        evaluate(small, tiny_dataset.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
