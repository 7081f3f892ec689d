"""The evaluate stage: figures against a hand-worked case, leaked rows, label order, files and wrong calls."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fer_ray.config.schema import Config, ModelConfig
from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.emotions import EMOTIONS, csv_order
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.inference.checkpoint import CheckpointInfo, save_checkpoint
from fer_ray.inference.predictor import Predictor
from fer_ray.inference.scores import read_evaluation
from fer_ray.models import build
from fer_ray.reporting.evaluation_tables import accuracy_text, describe

ALPHABETICAL = tuple(sorted(EMOTIONS))

FIELDS = {
    "evaluation": (
        "format_version fer_ray_version members pairs dataset dataset_fingerprint split rows leaked_rows label_names"
        " device precision main_tta tta notes"
    ),
    "member": "checkpoint architecture parameters epoch temperature accuracy nll share against_all against_others",
    "pair": "only_first_right only_second_right mcnemar_p first second disagreement",
    "tta": "official without_leaked images_per_s views ece_uncalibrated nll_uncalibrated reliability against_fewest",
    "scores": (
        "rows accuracy accuracy_low accuracy_high balanced_accuracy macro_f1 weighted_f1 kappa top2_accuracy nll ece"
        " classes confusion"
    ),
    "bin": "low high rows confidence accuracy",
}


def write_checkpoint(
    folder: Path,
    data: PreparedDataset,
    names: tuple[str, ...] = EMOTIONS,
    size: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Path:
    """Write an untrained network whose outputs stand in the order of ``names``: the same one under each order."""
    side = size or data.info.size
    torch.manual_seed(seed)
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
        temperature=temperature,
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
    pictures = {"confusion.png", "reliability.png"}
    pages = {"report.html", "model_card.md", "provenance.json"}
    assert names == {"metrics.json", "predictions.parquet", "samples.parquet"} | pages | pictures
    for picture in pictures:
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    assert read_evaluation(tmp_path / "out") == result.evaluation
    raw = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert raw["split"] == "test"
    assert list(raw["tta"]) == ["none", "flip"]
    assert " ".join(raw) == FIELDS["evaluation"]
    assert " ".join(raw["members"][0]) == FIELDS["member"]
    assert " ".join(raw["tta"]["flip"]) == FIELDS["tta"]
    assert " ".join(raw["tta"]["flip"]["official"]) == FIELDS["scores"]
    assert " ".join(raw["tta"]["flip"]["reliability"][0]) == FIELDS["bin"]
    assert (raw["format_version"], raw["tta"]["flip"]["views"], len(raw["tta"]["flip"]["reliability"])) == (3, 2, 15)

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
    text = describe(result.evaluation)
    assert accuracy_text(result.scores) in text
    assert "temperature 1: the probabilities are not calibrated" in text


def test_several_checkpoints_predict_together(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", tiny_dataset, ALPHABETICAL, seed=1, temperature=2.0)
    result = evaluate([checkpoint, other], tiny_dataset.path, tmp_path / "out", tta=["flip"])
    rows = pq.read_table(result.path / "predictions.parquet").to_pandas()
    images = tiny_dataset.load("test").images
    first = Predictor(checkpoint, "flip").predict(images).probabilities
    second = Predictor(other, "flip").predict(images).probabilities
    np.testing.assert_allclose(rows.filter(like="p_"), (first + second) / 2, atol=1e-5)

    right = [float((one.argmax(1) == rows["label"]).mean()) for one in (first, second)]
    one, two = result.evaluation.members
    assert [one.checkpoint, two.checkpoint] == [str(checkpoint), str(other)]
    assert [one.accuracy, two.accuracy] == pytest.approx(right)
    assert [one.share, two.share] == pytest.approx(
        [result.scores.accuracy - right[1], result.scores.accuracy - right[0]]
    )
    (pair,) = result.evaluation.pairs
    assert pair.only_first_right - pair.only_second_right == pytest.approx((right[0] - right[1]) * len(rows))
    raw = json.loads((result.path / "metrics.json").read_text())
    assert " ".join(raw["pairs"][0]) == FIELDS["pair"]
    text = describe(result.evaluation)
    assert text.startswith("2 networks (cnn3) on test") and str(other) in text and "McNemar p" in text
    assert "1 of the checkpoints have temperature 1" in text
    page = (result.path / "report.html").read_text()
    assert str(checkpoint) in page and str(other) in page


def test_temperature_moves_probabilities_and_no_label(
    checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path
) -> None:
    cooled = write_checkpoint(tmp_path / "cooled", tiny_dataset, temperature=50.0)
    plain, soft = (
        evaluate(folder, tiny_dataset.path, tmp_path / f"{folder.name} out", tta=["none"]).evaluation.tta["none"]
        for folder in (checkpoint, cooled)
    )
    assert plain.official.confusion == soft.official.confusion
    assert plain.official.nll > soft.official.nll
    assert soft.nll_uncalibrated == pytest.approx(plain.official.nll)
    assert soft.ece_uncalibrated == pytest.approx(plain.official.ece)
    assert plain.nll_uncalibrated == plain.official.nll


def test_no_mistakes_no_gallery_of_them(tiny_dataset: PreparedDataset, checkpoint: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "data"
    shutil.copytree(tiny_dataset.path, dataset)
    (file,) = (dataset / "test").glob("*.parquet")
    table = pq.read_table(file)
    column = table.schema.get_field_index("label")
    right = pa.array(Predictor(checkpoint).predict(tiny_dataset.load("test").images).labels, pa.int8())
    pq.write_table(table.set_column(column, table.schema.field(column), right), file)
    result = evaluate(checkpoint, dataset, tmp_path / "out", tta=["none"])
    assert result.scores.accuracy == 1
    page = (result.path / "report.html").read_text()
    assert "100.00%" in page and "Some correct predictions" in page and "mistakes" not in page


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
    assert accuracy_text(measured.without_leaked) in describe(result.evaluation)

    everything = copy_with_leaks(tiny_dataset, tmp_path / "all", leaked=len(rows))
    result = evaluate(checkpoint, everything, tmp_path / "out2", tta=["none"])
    assert result.evaluation.tta["none"].without_leaked is None
    assert re.search(r"^none .*%\)  +–  ", describe(result.evaluation), re.MULTILINE)


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
    assert any("not test results" in note for note in result.evaluation.notes)
    assert not any("temperature was fitted" in note for note in result.evaluation.notes)
    fitted = write_checkpoint(tmp_path / "fitted", tiny_dataset, temperature=1.5)
    notes = evaluate(fitted, dataset, tmp_path / "out3", tta=["none"]).evaluation.notes
    assert any("temperature was fitted on the same images" in note for note in notes)
    description["fingerprint"] = "of another dataset"
    (dataset / DATASET_FILE).write_text(json.dumps(description))
    drawn, elsewhere = evaluate(fitted, dataset, tmp_path / "out4", tta=["none"]).evaluation.notes
    assert "these results say nothing about real faces" in drawn
    assert "trained on another prepared dataset" in elsewhere
    with pytest.raises(UsageError, match="It has train, validation"):
        evaluate(checkpoint, dataset, tmp_path / "out2", split="test")
    assert not (tmp_path / "out2").exists()


def test_wrong_calls(checkpoint: Path, tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as wrong_tta:
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=["flop", "nine"])
    assert len(wrong_tta.value.problems) == 2
    assert "Did you mean 'flip'?" in wrong_tta.value.problems[0]
    with pytest.raises(UsageError, match="name at least one"):
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=[])
    with pytest.raises(UsageError, match="--tta flip: is named more than once"):
        evaluate(checkpoint, tiny_dataset.path, tmp_path / "out", tta=["flip", "none", "flip"])
    with pytest.raises(UsageError, match="in use"):
        evaluate(checkpoint, tiny_dataset.path, tiny_dataset.path)
    large = write_checkpoint(tmp_path / "large", tiny_dataset, size=32)
    with pytest.raises(DataError, match="--size 32"):
        evaluate(large, tiny_dataset.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
