"""Searches that can't be are refused with exit code 2 before Ray starts, all problems of a call at once."""

from collections.abc import Callable
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


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "1.5h")] == [90, 1800, 5400]
    for text in ("30", "0s", "-5m", "1d", "1h30m"):
        with pytest.raises(UsageError, match="such as 90s, 30m or 2h"):
            parse_duration(text)


def test_every_shipped_space_can_be_searched(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    options = TuneOptions(tiny_dataset.path, list(SHIPPED), tmp_path / "run", 1)
    assert list(check_request(options).spaces) == list(SHIPPED)


Refuse = Callable[..., str]


@pytest.fixture
def refused(
    tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Return a function that makes a call which has to be refused, and returns what is said."""
    monkeypatch.setattr(connect, "connect", lambda: pytest.fail("Ray was started"))

    def refuse(arguments: str, *spaces: str, dataset: Path = tiny_dataset.path) -> str:
        for number, text in enumerate(spaces):
            (tmp_path / f"s{number}.yaml").write_text(text)
            arguments += f" --space {tmp_path}/s{number}.yaml"
        with pytest.raises(SystemExit) as end:
            main(["tune", *f"--dataset {dataset} --trials 3 --output {tmp_path}/run {arguments}".split()])
        error = capsys.readouterr().err
        assert end.value.code == 2, error
        assert "Traceback" not in error and "SECRET" not in error and not (tmp_path / "run").exists()
        return " ".join(error.split())

    return refuse


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("model.dropuot: {uniform: [0, 0.6]}", "Did you mean 'model.dropout'"),
        ("augment: {uniform: [0, 1]}", "it is a section"),
        ("model.name: {categorical: [fast, cnn3]}", "a --space file for each"),
        ("model.dropout: {uniform: [0, 1.5]}", "model.dropout = 1.5: Input should be less than 1"),
        ("model.dropout: {uniform: [0.3, 0.6]}", "model.dropout = 0.1: the default"),
        (
            "loss.effective_number: {categorical: [null, 0.99]}\n  loss.class_weight_power: {uniform: [0, 1]}",
            "exclude each other",
        ),
        ("training.accumulate: {int: [1, 100]}", "may draw training.accumulate"),
    ],
)
def test_bad_spaces(search: str, said: str, refused: Refuse) -> None:
    assert said in refused("", f"search:\n  {search}\n")


LOST = "sqlite:////x/runtime_resources/working_dir_files/_ray_pkg_0/study.db"


@pytest.mark.parametrize(
    ("arguments", "searches", "said"),
    [
        ("--sampler cmaes", ["search: {training.batch_size: {categorical: [64, 128]}}"], "training.batch_size"),
        ("--sampler qmc", [GOOD, GOOD], "2 spaces are searched"),
        ("--sampler cmaes --objective accuracy,macro_f1", [GOOD], "supports one objective"),
        ("--objective accurcy", [GOOD], "Did you mean 'accuracy'?"),
        ("--objective images_per_s,accuracy", [GOOD], "Put accuracy or macro_f1 first"),
        ("--objective accuracy,accuracy", [GOOD], "Name each once"),
        ("--objective accuracy,macro_f1 --scheduler asha", [GOOD], "is weaker"),
        ("--workers-per-trial 65", [GOOD], "training.batch_size 128 / 65 workers / 1 = 1.97"),
        ("--cpus-per-trial 0", [GOOD], "--cpus-per-trial 0: each of 1 worker"),
        ("--cpus-per-trial 3 --workers-per-trial 2", [GOOD], "a multiple of 2"),
        ("--storage postgre://me:SECRET@host/a", [GOOD], "--storage postgre://me:***@host/a: Can't load plugin"),
        ("--storage me:SECRET@host/a", [GOOD], "Give a database URL"),
        ("--storage sqlite://", [GOOD], "--storage sqlite://: is in memory"),
        (f"--storage {LOST}", [GOOD], "study.db: this database would be lost after the job"),
        ("--gpus-per-trial 1.5", [GOOD], "--gpus-per-trial 1.5: must be 0, a fraction of one GPU"),
        ("--gpus-per-trial 3 --workers-per-trial 2", [GOOD], "must be 0, or 2, one for each of 2 workers"),
        ("--log wandb", [GOOD], "--log wandb: must be 'tensorboard' or 'mlflow'"),
    ],
)
def test_bad_requests(arguments: str, searches: list[str], said: str, refused: Refuse) -> None:
    assert said in refused(arguments, *searches)


def test_a_logger_that_is_not_installed(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_options, "find_spec", lambda asked: None)
    said = refused("--log tensorboard,mlflow", GOOD)
    assert "pip install tensorboardX" in said and "pip install mlflow" in said


def test_all_at_once(refused: Refuse, tmp_path: Path) -> None:
    """What the options alone tell, and then what the dataset and the sampler tell."""
    wrong = "search: {model.dropuot: {uniform: [0, 1]}, training.epochs: {int: [0, 90]}}"
    error = refused(
        f"--space missing.yaml --space {tmp_path}/s1.yaml --time-budget soon", wrong, "", dataset=tmp_path / "nothing"
    )
    options = ["missing.yaml: no such file", "nothing: no such folder", "--time-budget soon"]
    for part in [*options, "model.dropuot", "s1.yaml: nothing to search", "second space named 's1'"]:
        assert part in error
    error = refused("--objective images_per_s --scheduler asha --storage sqlite://", "model: {name: cnn4}\n" + GOOD)
    for part in ["Did you mean 'cnn3'", "Put accuracy", "is in memory"]:
        assert part in error
