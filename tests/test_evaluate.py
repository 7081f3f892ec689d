"""The evaluate stage: files, an ensemble, copies of training images, the choice of the split, memory, wrong calls."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoints_made import made_checkpoint, write_checkpoint

from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.inference.predictor import Predictor
from fer_ray.inference.scores import read_evaluation
from fer_ray.reporting.evaluation_tables import accuracy_text, describe

ALPHABETICAL = tuple(sorted(EMOTIONS))
FIELDS = {
    "evaluation": (
        "format_version fer_ray_version members pairs dataset dataset_fingerprint split rows leaked_rows label_names"
        " device precision main_tta tta notes"
    ),
    "member": "checkpoint architecture parameters epoch temperature accuracy nll share against_all against_others",
    "pair": "only_first_right only_second_right mcnemar_p first second disagreement",
    "tta": "official without_leaked images_per_s views ece_uncalibrated reliability against_fewest",
    "scores": "rows accuracy accuracy_low accuracy_high balanced_accuracy macro_f1 kappa nll ece classes confusion",
    "bin": "low high rows confidence accuracy",
}
"""The fields in metrics.json, of which other programs may read any."""


def write(folder: Path, data: PreparedDataset, **options: Any) -> Path:
    """Write an untrained checkpoint for a dataset; see ``made_checkpoint``."""
    fit = data.info.model_dump(include={"mean", "std", "size"}) | {"dataset_fingerprint": data.info.fingerprint}
    return write_checkpoint(folder, made_checkpoint("cnn3", **fit | options))


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint") / "best", tiny_dataset)


def test_files(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    result = evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", precision="float32")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    data, pictures = {"metrics.json", "predictions.parquet", "samples.parquet"}, {"confusion.png", "reliability.png"}
    assert files == data | pictures | {"report.html", "model_card.md", "provenance.json"}
    for picture in pictures:
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    assert read_evaluation(tmp_path / "out") == result.evaluation
    raw = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (raw["format_version"], raw["split"], list(raw["tta"])) == (4, "test", ["none", "flip"])
    measured = raw["tta"]["flip"]
    assert (measured["views"], len(measured["reliability"])) == (2, 15)
    parts = raw, raw["members"][0], measured, measured["official"], measured["reliability"][0]
    assert list(map(" ".join, parts)) == [FIELDS[part] for part in ("evaluation", "member", "tta", "scores", "bin")]

    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    probabilities = [f"p_{name}" for name in EMOTIONS]
    assert list(rows) == ["id", "label", "predicted", "confidence", *probabilities, "tta_std", "leaked"]
    split = tiny_dataset.load("test")
    assert rows["id"] == split.ids
    table = np.array([rows[name] for name in probabilities]).T
    expected = Predictor(checkpoint, "flip", "float32").predict(split.images)
    np.testing.assert_allclose(table, expected.probabilities, atol=1e-5)
    assert rows["predicted"] == table.argmax(axis=1).tolist()
    assert rows["confidence"] == table.max(axis=1).tolist()
    assert result.scores.accuracy == pytest.approx(np.mean(np.equal(rows["label"], rows["predicted"])))
    assert accuracy_text(result.scores) in describe(result.evaluation)
    assert "confident mistakes" in (tmp_path / "out" / "report.html").read_text()


def test_several_checkpoints_predict_together(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    other = write(tmp_path / "other", tiny_dataset, label_names=ALPHABETICAL, seed=1, temperature=2.0)
    result = evaluate([checkpoint, other], tiny_dataset.path, tmp_path / "out", tta=["flip"], precision="float32")
    rows = pq.read_table(result.path / "predictions.parquet").to_pandas()
    images = tiny_dataset.load("test").images
    alone = [Predictor(one, "flip", "float32").predict(images).probabilities for one in (checkpoint, other)]
    np.testing.assert_allclose(rows.filter(like="p_"), np.mean(alone, axis=0), atol=1e-5)
    assert [one.checkpoint for one in result.evaluation.members] == [str(checkpoint), str(other)]
    (pair,) = json.loads((result.path / "metrics.json").read_text())["pairs"]
    assert " ".join(pair) == FIELDS["pair"]
    measured = result.evaluation.main
    assert measured.ece_uncalibrated != measured.official.ece
    for said in (describe(result.evaluation), (result.path / "report.html").read_text()):
        assert str(checkpoint) in said and str(other) in said


def changed(data: PreparedDataset, folder: Path, column: str, values: pa.Array | list[list[str]]) -> Path:
    """Copy a dataset with another column in its test split."""
    shutil.copytree(data.path, folder)
    (file,) = (folder / "test").glob("*.parquet")
    table = pq.read_table(file)
    position = table.schema.get_field_index(column)
    pq.write_table(table.set_column(position, table.schema.field(position), [values]), file)
    return folder


def test_leaked_rows_are_counted_apart(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    rows = tiny_dataset.info.splits["test"].rows
    dataset = changed(tiny_dataset, tmp_path / "leaky", "flags", [["leaked"]] * 10 + [[]] * (rows - 10))
    result = evaluate(checkpoint, dataset, tmp_path / "out", tta=["none"])
    table = pq.read_table(result.path / "predictions.parquet").to_pandas()
    measured, kept = result.evaluation.tta["none"], table[~table["leaked"]]
    assert (result.evaluation.leaked_rows, measured.official.rows) == (10, rows)
    assert measured.without_leaked is not None
    assert measured.without_leaked.rows == rows - 10
    assert measured.without_leaked.accuracy == pytest.approx((kept["label"] == kept["predicted"]).mean())
    assert accuracy_text(measured.without_leaked) in describe(result.evaluation)

    right = Predictor(checkpoint).predict(tiny_dataset.load("test").images).labels
    without_mistakes = PreparedDataset(changed(tiny_dataset, tmp_path / "right", "label", pa.array(right, pa.int8())))
    everything = changed(without_mistakes, tmp_path / "all", "flags", [["leaked"]] * rows)
    result = evaluate(checkpoint, everything, tmp_path / "out2", tta=["none"])
    assert result.evaluation.tta["none"].without_leaked is None and result.scores.accuracy == 1
    assert "confident mistakes" not in (result.path / "report.html").read_text()
    assert re.search(r"^none .*%\)  +–  ", describe(result.evaluation), re.MULTILINE)


def test_validation_where_there_is_no_test(
    checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "data"
    shutil.copytree(tiny_dataset.path, dataset)
    description = json.loads((dataset / DATASET_FILE).read_text())
    del description["splits"]["test"]
    (dataset / DATASET_FILE).write_text(json.dumps(description))
    fitted = write(tmp_path / "fitted", tiny_dataset, temperature=1.5)
    evaluation = evaluate(fitted, dataset, tmp_path / "out", tta=["none"]).evaluation
    assert evaluation.split == "validation"
    assert "has no test split: measuring on validation" in capsys.readouterr().err
    assert any("not test results" in note for note in evaluation.notes)
    assert any("temperature was fitted on the same images" in note for note in evaluation.notes)
    (dataset / DATASET_FILE).write_text(json.dumps(description | {"fingerprint": "of another dataset"}))
    drawn, elsewhere = evaluate(fitted, dataset, tmp_path / "out2", tta=["none"]).evaluation.notes
    assert "these results say nothing about real faces" in drawn
    assert "trained on another prepared dataset" in elsewhere
    with pytest.raises(UsageError, match="which has train, validation"):
        evaluate(checkpoint, dataset, tmp_path / "out3", split="test")
    assert not (tmp_path / "out3").exists()


def test_wrong_calls(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name at least one"):
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=[])
    with pytest.raises(UsageError, match="--tta flip: is named more than once"):
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=["flip", "none", "flip"])
    large = write(tmp_path / "large", tiny_dataset, size=32)
    with pytest.raises(DataError, match="--size 32"):
        evaluate(large, tiny_dataset.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
