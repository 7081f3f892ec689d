"""The report stage over every kind of folder, and wrong calls."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_ray.config import load_config
from fer_ray.data.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.report import report
from fer_ray.train import train

HOSTILE = "<b onload=x>&.jpg"


@pytest.fixture(scope="module")
def folders(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    config = load_config(None, ["model.name=cnn3", "optimizer.name=adam", "training.epochs=1"])
    run = train(tiny_dataset.path, config, root / "run")
    evaluate(run.checkpoint, tiny_dataset.path, root / "evaluation", tta=["none"])
    return {
        "run": root / "run",
        "evaluation": root / "evaluation",
        "search": write_search(root / "search"),
        "scores": write_scores(root / "scores"),
        "dataset": tiny_dataset.path,
    }


def write_search(folder: Path) -> Path:
    folder.mkdir()
    trials = {
        "number": [0, 1, 2],
        "state": ["COMPLETE", "PRUNED", "FAIL"],
        "value": [0.71, 0.4, None],
        "macro_f1": [0.69, 0.3, None],
        "architecture": ["fast", "cnn3", "cnn3"],
        "space": ["fast", "cnn3", "cnn3"],
        "optimizer.learning_rate": [0.1, 0.001, 0.01],
        "epochs": [4, 1, 0],
        "best_epoch": [4, 1, None],
        "seconds": [10.0, 2.0, None],
        "error": [None, None, f"first line\n{HOSTILE} diverged"],
    }
    pq.write_table(pa.table(trials), folder / "trials.parquet")
    return folder


def write_scores(folder: Path) -> Path:
    folder.mkdir()
    rows = {"path": ["/in/a.jpg", f"/in/{HOSTILE}"], "status": ["ok", "empty"], "error": [None, "no bytes"]}
    pq.write_table(pa.table(rows), folder / "part-00000.parquet")
    summary = {
        "files": 2,
        "by_status": {"ok": 1, "empty": 1},
        "by_label": {"happy": {"files": 1, "share": 1.0}},
        "seconds": 65.0,
        "images_per_s": 1234.0,
        "images_per_s_from_first_batch": 2000.0,
        "precision": ["float32"],
        "versions": {"fer_ray": "0"},
        "checkpoint": "/c",
        "tta": "flip",
        "inputs": ["/in"],
        "fingerprint": "abc",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_every_kind_on_one_page(folders: dict[str, Path], tmp_path: Path) -> None:
    page = report(list(folders.values()), tmp_path / "out", title="All").page
    assert page == tmp_path / "out" / "report.html"
    text = page.read_text(encoding="utf-8")
    for kind in ("Training run", "Evaluation", "Search", "Scoring job", "Dataset"):
        assert f'<p class="what">{kind}</p>' in text
    assert "the best is trial 0, fast, with 71.00% validation accuracy" in text
    assert "2 files, 1 of them could not be labelled; 1 min 05 s, 1,234 images/s" in text
    assert "&lt;b onload=x&gt;&amp;.jpg" in text
    assert "first line" not in text
    assert HOSTILE not in text
    assert "http://" not in text
    assert "https://" not in text


def test_all_wrong_folders_are_named_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        report([tmp_path / "missing", folders["run"], folders["run"].parent], tmp_path / "out")
    missing, parent = error.value.problems
    assert "no such folder" in missing
    assert "a search with trials.parquet" in parent
    assert f"Did you mean the folders in it: {folders['evaluation']}" in parent
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["metrics.json", "summary.json", "metrics.jsonl", "dataset.json"])
def test_damaged_files(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name in (file, "config.yaml", "predictions.parquet"):
        (folder / name).write_text("{")
    with pytest.raises(DataError, match=file):
        report([folder], tmp_path / "out")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        report([], tmp_path / "out")
