"""Searches that can't be are refused with exit code 2 before Ray starts, all problems of a call at once."""

from pathlib import Path

import pytest

from fer_ray.cli import main
from fer_ray.cluster import connect
from fer_ray.config import tune_options
from fer_ray.config.files import SHIPPED
from fer_ray.config.tune_options import TuneOptions, parse_duration
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.search.request import check_request

GOOD = "search: {model.dropout: {uniform: [0.0, 0.6]}}"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "0s", "-5m", "1d", "1h30m", ""])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(UsageError, match="such as 90s, 30m or 2h"):
        parse_duration(text)


def test_every_shipped_space_can_be_searched(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    assert list(check_request(TuneOptions(tiny_dataset.path, list(SHIPPED), tmp_path / "run", 1)).spaces) == list(
        SHIPPED
    )


def refused(
    dataset: Path, spaces: list[Path], output: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    named = [text for space in spaces for text in ("--space", str(space))]
    with pytest.raises(SystemExit) as end:
        main(["tune", "--dataset", str(dataset), *named, "--trials", "3", "--output", str(output), *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2, error
    assert "Traceback" not in error and not output.exists()
    return " ".join(error.split())


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "connect", lambda: pytest.fail("Ray was started"))


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("model.dropuot: {uniform: [0, 0.6]}", ["no such config path", "Did you mean 'model.dropout'"]),
        ("augment: {uniform: [0, 1]}", ["it is a section", "augment.rotation"]),
        ("model.name: {categorical: [fast, cnn3]}", ["a --space file for each"]),
        ("model.dropout: {uniform: [0, 1.5]}", ["model.dropout = 1.5", "less than 1"]),
        ("model.dropout: {uniform: [0.3, 0.6]}", ["model.dropout = 0.1", "the default", "Change one"]),
        ("model.dropout: 0.3", ["search.model.dropout: must be one of uniform", "not 0.3"]),
        ("training.epochs: {uniform: [20, 30]}", ["training.epochs", "valid integer"]),
        ("model.dropout: {uniform: [0, 1]}\n  model.dropout: {uniform: [0, 0.5]}", ["is repeated", "line 3"]),
        ("optimizer.name: {categorical: [sgd, rmsprop]}", ["optimizer.name = 'rmsprop'", "'sgd', 'adam' or 'adamw'"]),
        ("optimizer.name: {categorical: [adam, adamw]}", ["optimizer.name = 'sgd'", "the default"]),
        (
            "schedule.step_at: {categorical: [[0.5, 0.75]]}\n  schedule.step_at.0: {uniform: [0.4, 0.6]}",
            ["search.schedule.step_at and search.schedule.step_at.0: both set the same value"],
        ),
        ("loss.class_weights.1: {uniform: [1, 2]}", ["loss.class_weights = None is not a list"]),
        ("schedule.step_at.2: {uniform: [0.8, 0.9]}", ["has 2 elements, counted from 0"]),
        (
            "loss.effective_number: {categorical: [null, 0.99]}\n  loss.class_weight_power: {uniform: [0, 1]}",
            ["may be drawn", "exclude each other", "in two space files"],
        ),
        ("training.accumulate: {int: [1, 100]}", ["may draw training.accumulate", "below 2 images"]),
        ("model.dropout: {uniform: [false, true]}", ["uniform needs two numbers"]),
        ("3: {uniform: [0, 1]}\n  model.dropout: {uniform: [0]}", ["search.3: no such", "needs two numbers"]),
        ("3: {uniform: [0, 1]}\n  model.dropout: {uniform: [0, 2]}", ["search.3: no such", "less than 1"]),
        ("", ["nothing to search"]),
    ],
)
def test_bad_spaces(
    search: str, said: list[str], tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(f"search:\n  {search}\n")
    error = refused(tiny_dataset.path, [tmp_path / "s.yaml"], tmp_path / "run", [], capsys)
    assert all(part in error for part in said), error


LOST = "sqlite:////x/runtime_resources/working_dir_files/_ray_pkg_0/study.db"


@pytest.mark.parametrize(
    ("arguments", "searches", "said"),
    [
        ("--sampler bayes", [GOOD], ["--sampler bayes", "tpe, gp, cmaes, random, qmc"]),
        ("--sampler cmaes", ["search: {training.batch_size: {categorical: [64, 128]}}"], ["training.batch_size"]),
        ("--sampler qmc", [GOOD, GOOD], ["2 spaces are searched", "Use tpe or random"]),
        ("--sampler cmaes --objective accuracy,macro_f1", [GOOD], ["supports one objective"]),
        ("--objective accurcy", [GOOD], ["'accurcy' isn't one of", "Did you mean 'accuracy'"]),
        ("--objective images_per_s,accuracy", [GOOD], ["Put accuracy or macro_f1 first"]),
        ("--objective accuracy,accuracy", [GOOD], ["Name each once"]),
        ("--objective accuracy,macro_f1 --scheduler asha", [GOOD], ["is weaker", "Omit it"]),
        ("--scheduler halving", [GOOD], ["--scheduler halving", "asha, hyperband, median, none"]),
        ("--workers-per-trial 0", [GOOD], ["--workers-per-trial 0: must be at least 1"]),
        ("--workers-per-trial 65", [GOOD], ["training.batch_size 128 / 65 workers / 1 = 1.97"]),
        ("--cpus-per-trial 0", [GOOD], ["--cpus-per-trial 0: each of 1 worker"]),
        ("--cpus-per-trial 3 --workers-per-trial 2", [GOOD], ["--cpus-per-trial 3", "a multiple of 2"]),
        ("--storage postgre://me:SECRET@host/a", [GOOD], ["--storage postgre://me:***@host/a: Can't load plugin"]),
        ("--storage me:SECRET@host/a", [GOOD], ["Could not parse", "Give a database URL"]),
        ("--storage sqlite://", [GOOD], ["--storage sqlite://: is in memory"]),
        (f"--storage {LOST}", [GOOD], ["study.db: this database would be lost after the job"]),
        ("--gpus-per-trial 1.5", [GOOD], ["--gpus-per-trial 1.5: must be 0, a fraction of one GPU"]),
        ("--gpus-per-trial 3 --workers-per-trial 2", [GOOD], ["must be 0, or 2, one for each of 2 workers", "NCCL"]),
        ("--gpus-per-trial -1", [GOOD], ["--gpus-per-trial -1: must be 0, a fraction of one GPU"]),
        ("--gpus-per-trial 2", [GOOD], ["leaves others idle. Use --workers-per-trial to train on several"]),
    ],
)
def test_bad_requests(
    arguments: str,
    searches: list[str],
    said: list[str],
    tiny_dataset: PreparedDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / f"s{number}.yaml" for number in range(len(searches))]
    for file, text in zip(files, searches, strict=True):
        file.write_text(text)
    error = refused(tiny_dataset.path, files, tmp_path / "run", arguments.split(), capsys)
    assert all(part in error for part in said) and "SECRET" not in error, error


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_logger_that_is_not_installed(
    name: str,
    package: str,
    tiny_dataset: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tune_options, "find_spec", lambda asked: None if asked == package else object())
    (tmp_path / "s.yaml").write_text(GOOD)
    arguments = ["--log", f"{name},wandb"]
    error = refused(tiny_dataset.path, [tmp_path / "s.yaml"], tmp_path / "run", arguments, capsys)
    assert f"pip install {package}" in error and "--log wandb: choose tensorboard or mlflow." in error


def test_all_at_once(tiny_dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the options alone tell, and then what the dataset and the sampler tell."""
    (tmp_path / "a.yaml").write_text("search: {model.dropuot: {uniform: [0, 1]}, training.epochs: {int: [0, 90]}}")
    (tmp_path / "b.yaml").write_text("search: {model.dropout: {uniform: [0.5, 0.6]}}")
    (tmp_path / "empty.yaml").write_text("model: {name: cnn3}")
    arguments = ["--sampler", "bayes", "--scheduler", "halving", "--objective", "speed", "--time-budget", "soon"]
    spaces = [tmp_path / name for name in ("a.yaml", "b.yaml", "empty.yaml", "empty.yaml", "missing.yaml")]
    error = refused(tmp_path / "nothing", spaces, tmp_path / "run", arguments, capsys)
    for part in [
        "model.dropuot",
        "training.epochs = 0",
        "b.yaml: model.dropout",
        "empty.yaml: nothing to search",
        "second space named 'empty'",
        "missing.yaml: no such file",
        "nothing: no such folder",
        "--time-budget soon",
    ]:
        assert part in error
    (tmp_path / "a.yaml").write_text("model: {name: cnn4}\n" + GOOD)
    error = refused(tiny_dataset.path, spaces[:1], tmp_path / "run", arguments[:6], capsys)
    for part in ["Did you mean 'cnn3'", "bayes", "halving", "speed"]:
        assert part in error
