"""The train stage: files out, workers, resuming and wrong calls."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_made import write_prepared

from fer_ray.cli import main
from fer_ray.config.files import load_config
from fer_ray.config.schema import Config
from fer_ray.dataset.store import DATASET_FILE, PreparedDataset
from fer_ray.errors import DataError, UsageError
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE
from fer_ray.train import train
from fer_ray.training.run_folder import Metrics, RunFolder, Snapshot


def config(*overrides: str) -> Config:
    quick = ["model.name=lenet", "optimizer.name=adam", "optimizer.learning_rate=2e-3", "model.dropout=0.1"]
    return load_config(None, [*quick, "training.batch_size=64", "training.epochs=2", *overrides])


WILD = ["optimizer.name=sgd", "optimizer.learning_rate=10", "optimizer.momentum=0.99", "schedule.name=constant"]


@pytest.fixture(scope="module")
def run(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("train") / "run"
    train(tiny_dataset.path, config(), output)
    return output


def test_files(run: Path) -> None:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    weights = {f"{folder}/{file}" for folder in ("checkpoint", "last") for file in (INFO_FILE, WEIGHTS_FILE)}
    others = "provenance.json config.yaml metrics.jsonl curves.png profile.json last/training.pt .lock"
    assert names == weights | set(others.split())
    assert load_config(run / "config.yaml") == config()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_is_resumed_with_its_own_configuration(
    tiny_dataset: PreparedDataset, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunFolder.record

    def stop(run: RunFolder, metrics: Metrics, snapshot: Snapshot) -> None:
        record(run, metrics, snapshot)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunFolder, "record", stop)
        train(tiny_dataset.path, config(), tmp_path / "run")
    for _ in range(2):  # the second has nothing left to do
        again = train(tiny_dataset.path, None, tmp_path / "run", resume=True)
        assert [line["epoch"] for line in again.history] == [1, 2] and again.config == config()
    files = [folder / "checkpoint" / "model.safetensors" for folder in (run, tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_resume_without_what_it_would_go_on_from(tiny_dataset: PreparedDataset, run: Path, tmp_path: Path) -> None:
    """Nothing that is whole is overwritten, neither from a damaged last epoch nor by starting over."""
    output = tmp_path / "run"
    shutil.copytree(run, output)
    before = {name: (output / "checkpoint" / name).read_bytes() for name in ("model.safetensors", "checkpoint.json")}
    weights, state = output / "last" / "model.safetensors", output / "last" / "training.pt"
    for file in (weights, state):
        content = file.read_bytes()
        file.write_bytes(content[:5000])
        with pytest.raises(DataError, match=rf"last/{file.name}: damaged"):
            train(tiny_dataset.path, config(), output, resume=True)
        file.write_bytes(content)
    shutil.rmtree(output / "last")
    with pytest.raises(DataError, match="has 2 epochs but no last/ to resume from"):
        train(tiny_dataset.path, config(), output, resume=True)
    assert {name: (output / "checkpoint" / name).read_bytes() for name in before} == before


def test_early_ends_are_said(tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model.name=lenet", "optimizer.learning_rate=1e-9", "training.epochs=9", "training.patience=1"]
    arguments = ["--dataset", str(tiny_dataset.path), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        main(["train", *arguments, *(part for option in options for part in ("--set", option))])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "stopped early: no improvement for 1 epoch (training.patience)" in said
    assert "schedule.first_size" not in said  # which lenet refuses


def test_resume_of_something_else(tiny_dataset: PreparedDataset, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another configuration"):
        train(tiny_dataset.path, config("training.seed=9"), run, resume=True)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"not a training run, config\.yaml is missing"):
        train(tiny_dataset.path, config(), tmp_path, resume=True)
    other = tmp_path / "other"
    shutil.copytree(tiny_dataset.path, other)
    info = json.loads((other / DATASET_FILE).read_text())
    (other / DATASET_FILE).write_text(json.dumps(info | {"fingerprint": "another"}))
    with pytest.raises(DataError, match="not the dataset"):
        train(other, config(), run, resume=True)


def test_a_run_that_diverges_at_once_leaves_its_folder_free(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training loss is nan.*Lower optimizer.learning_rate"):
        train(tiny_dataset.path, config(*WILD, "model.name=cnn3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_do_not_fit_are_mapped_and_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    labels = [None if row % 10 == 3 else row // 100 for row in range(700)]
    dataset = write_prepared(tmp_path / "data", {"train": labels, "validation": labels[::10]}, soft=True)
    settings = config("loss.soft_labels=true", "model.name=cnn3")
    in_memory = train(dataset.path, settings, tmp_path / "in-memory")
    monkeypatch.setattr("fer_ray.train.available_memory", lambda: 200_000)
    mapped = train(dataset.path, settings, tmp_path / "mapped")
    timed = ("seconds", "images_per_s")
    histories = [
        [{k: v for k, v in line.items() if k not in timed} for line in run.history] for run in (in_memory, mapped)
    ]
    assert histories[0] == histories[1]
    assert mapped.profile is not None and mapped.profile.mapped


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.drop_columns(["flags"]), r"part-00000\.parquet: column 'flags' is missing"),
        (lambda table: table.set_column(2, "pixels", pa.array([b""] * len(table))), r"column 'pixels' is binary"),
        (lambda table: table.set_column(1, "label", pa.array([9] * len(table), pa.int8())), "label 9: "),
        (None, "no labelled image in a validation split"),
    ],
)
def test_a_damaged_dataset_is_told_and_leaves_no_run(
    change: Callable[[pa.Table], pa.Table] | None, problem: str, tiny_dataset: PreparedDataset, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset.path, data)
    if change:
        file = data / "train" / "part-00000.parquet"
        pq.write_table(change(pq.read_table(file)), file)
    else:
        description = json.loads((data / DATASET_FILE).read_text())
        description["splits"]["validation"]["labels"] = {}
        (data / DATASET_FILE).write_text(json.dumps(description))
    with pytest.raises(DataError, match=problem):
        train(data, config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
