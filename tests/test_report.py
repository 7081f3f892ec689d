"""The report stage over every kind of folder, and wrong calls."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_search import Scripted, write_search
from markupsafe import escape

from fer_ray.config.files import load_config
from fer_ray.config.search_space import SearchSpace
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.report import report
from fer_ray.score import score
from fer_ray.train import train

HOSTILE = "<b onload=x>&.jpg"


@pytest.fixture(scope="module")
def folders(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    config = load_config(None, ["model.name=cnn3", "optimizer.name=adam", "training.epochs=1"])
    run = train(tiny_dataset.path, config, root / "run")
    evaluate(run.checkpoint, tiny_dataset.path, root / "evaluation", tta=["none"])
    search = {"search": {"optimizer.learning_rate": {"log_uniform": [0.001, 0.1]}}}
    spaces = {name: SearchSpace.model_validate({"model": {"name": name}} | search) for name in ("fast", "cnn3")}
    errors = [Scripted([], f"Traceback (most recent call last):\n{HOSTILE} diverged")]
    write_search(root / "search", spaces, [Scripted([0.6, 0.71]), Scripted([0.4], "prune"), *errors])
    (root / HOSTILE).touch()
    score(run.checkpoint, [tiny_dataset.path / "classes.png", root / HOSTILE], root / "scores", max_error_rate=0.5)
    return {
        "run": root / "run",
        "evaluation": root / "evaluation",
        "search": root / "search",
        "scores": root / "scores",
        "dataset": tiny_dataset.path,
    }


def test_every_kind_on_one_page(folders: dict[str, Path], tmp_path: Path) -> None:
    page = report(list(folders.values()), tmp_path / "out", title="All").page
    assert page == tmp_path / "out" / "report.html"
    text = page.read_text(encoding="utf-8")
    for kind in ("Training run", "Evaluation", "Search", "Scoring job", "Dataset"):
        assert f'<p class="kind">{kind}</p>' in text
    assert "the best is trial 0, fast, with 71.00% validation accuracy" in text
    assert "2 inputs, 1 failed; " in text
    assert "&lt;b onload=x&gt;&amp;.jpg" in text
    assert not any(one in text for one in ("Traceback", HOSTILE, "http://", "https://"))
    (start,) = json.loads((folders["run"] / "provenance.json").read_text("utf-8"))["starts"]
    assert escape(start["command"]) in text and f"torch {start['versions']['torch']}" in text


def test_runs_are_compared_the_best_first(folders: dict[str, Path], tmp_path: Path) -> None:
    better = tmp_path / "b" / "run"
    shutil.copytree(folders["run"], better)
    line = json.loads((better / "metrics.jsonl").read_text()) | {"validation_accuracy": 1.0}
    (better / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    text = report([folders["run"], better, folders["run"]], tmp_path / "out").page.read_text("utf-8")
    name = f"{folders['run'].parent.name}/run"
    assert "to 100.00% validation accuracy; the best is b/run." in text and "datasets" not in text
    rows = re.findall(r'<tr><th scope="row">([^<]*/run)</th><td[^>]*>cnn3', text)
    assert rows == ["b/run", name]
    info = better / "checkpoint" / "checkpoint.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"dataset_fingerprint": "another"}))
    text = report([folders["run"], better], tmp_path / "apart").page.read_text("utf-8")
    assert "They were trained on 2 different datasets, so their accuracies can&#39;t be compared." in text
    alone = report([better], tmp_path / "out2")
    assert "Comparison" not in alone.page.read_text("utf-8") and alone.card is None


def test_evaluations_of_the_same_images_are_compared(folders: dict[str, Path], tmp_path: Path) -> None:
    other, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    shutil.copytree(folders["evaluation"], other)
    shutil.copytree(folders["evaluation"], elsewhere)
    rows = pq.read_table(other / "predictions.parquet")
    wrong = pa.array([(label + 1) % 7 for label in rows["label"].to_pylist()], rows.schema.field("predicted").type)
    column = rows.schema.get_field_index("predicted")
    pq.write_table(rows.set_column(column, "predicted", wrong), other / "predictions.parquet")
    right = sum(map(int.__eq__, rows["predicted"].to_pylist(), rows["label"].to_pylist()))
    metrics = json.loads((elsewhere / "metrics.json").read_text()) | {"dataset_fingerprint": "another"}
    (elsewhere / "metrics.json").write_text(json.dumps(metrics))
    result = report([folders["evaluation"], other, elsewhere], tmp_path / "out")
    text = result.page.read_text("utf-8")
    assert 'evaluation and other</th><td class="number">' in text
    assert f'<td class="number">{right}</td><td class="number">0</td>' in text
    card = (folders["evaluation"] / "model_card.md").read_text("utf-8")
    assert result.card == tmp_path / "out" / "model_card.md" and result.card.read_text("utf-8").count(card) == 3


def test_all_wrong_folders_are_named_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    torn = shutil.copytree(folders["evaluation"], tmp_path / "torn")
    (torn / "predictions.parquet").unlink()
    with pytest.raises(UsageError, match="name at least one"):
        report([], tmp_path / "out")
    with pytest.raises(DataError) as error:
        report([tmp_path / "missing", folders["run"], torn, folders["run"].parent], tmp_path / "out")
    missing, half, parent = error.value.problems
    assert "an evaluation, but its predictions.parquet is missing" in half
    assert "no such folder" in missing
    assert "a search with study.json" in parent
    assert f"Did you mean the folders in it: {folders['evaluation']}" in parent
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"{", b'{"epoch": 1}'])
@pytest.mark.parametrize("file", ["metrics.json", "summary.json", "metrics.jsonl", "dataset.json", "study.json"])
def test_damaged_files(file: str, content: bytes, tmp_path: Path) -> None:
    (folder := tmp_path / "damaged").mkdir()
    for name in (file, "config.yaml", "predictions.parquet"):
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=file):
        report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
