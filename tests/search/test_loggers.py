"""What TensorBoard and MLflow are shown of a search, through Ray's callbacks."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback
from tensorboardX.proto.event_pb2 import Event

from fer_ray.config.search_space import SearchSpace
from fer_ray.search.on_ray import loggers as loggers_module
from fer_ray.search.on_ray.loggers import make_loggers
from fer_ray.search.search_metric import OBJECTIVES

SPACE = SearchSpace.model_validate(
    {
        "model": {"name": "cnn3", "dropout": 0.5},
        "search": {
            "model.dropout": {"uniform": [0.2, 0.6]},
            "optimizer.momentum": {"uniform": [0.8, 0.99]},
            "schedule.step_at": {"categorical": [[0.5, 0.75], [0.6, 0.9]]},
        },
    }
)


class Told(LoggerCallback):
    """Notes what a callback of Ray's is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def log_trial_start(self, trial: Any) -> None:
        self.events.append(("start", str(trial), trial.config))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.events.append(("result", str(trial), result))

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self.events.append(("end", str(trial), failed))


def trial(number: int) -> SimpleNamespace:
    return SimpleNamespace(config={"number": number, "space": "a", "config": SPACE.defaults.model_dump_json()})


def result(epoch: int, accuracy: float, best: float) -> dict[str, Any]:
    metrics = {"epoch": float(epoch), "validation_accuracy": accuracy, "train_loss": 1.5}
    return {"metrics": metrics, "best": best, "done": False}


def loggers(folder: Path, *names: str) -> list[Any]:
    return make_loggers(names, folder, "study", {"a": SPACE}, OBJECTIVES["accuracy"])


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Told]:
    told = Told()
    monkeypatch.setattr(loggers_module, "_TensorBoard", lambda: told)
    (shown,) = loggers(tmp_path, "tensorboard")
    return shown, told


def test_trials_go_by_number_config_path_and_metric(told: tuple[Any, Told]) -> None:
    shown, logger = told
    shown.on_trial_start(1, [], trial(12))
    shown.on_trial_result(2, [], trial(12), result(1, 0.4, best=0.4))
    shown.on_trial_complete(3, [], trial(12))
    parameters = {
        "space": "a",
        "model.dropout": 0.5,
        "optimizer.momentum": SPACE.optimizer.momentum,
        "schedule.step_at": str(SPACE.schedule.step_at),
    }
    metrics = {"validation_accuracy": 0.4, "train_loss": 1.5, "best_validation_accuracy": 0.4}
    assert logger.events == [
        ("start", "trial 12", parameters),
        ("result", "trial 12", metrics | {"training_iteration": 1}),
        ("end", "trial 12", False),
    ]


def test_every_trial_ends_once_and_failed_ones_as_failed(told: tuple[Any, Told]) -> None:
    shown, logger = told
    for number in range(3):
        shown.on_trial_start(1, [], trial(number))
    shown.on_trial_result(2, [], trial(0), {"error": "the run diverged"})
    shown.on_trial_complete(3, [], trial(0))
    shown.on_trial_error(3, [], trial(1))
    shown.on_trial_complete(3, [], trial(7))  # stopped before it began
    shown.on_experiment_end([])
    ends = [event for event in logger.events if event[0] == "end"]
    assert ends == [("end", "trial 0", True), ("end", "trial 1", True), ("end", "trial 2", False)]


def test_a_search_goes_on_without_a_logger_that_fails(
    told: tuple[Any, Told], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, logger = told

    def refuse(*_: Any) -> None:
        raise ConnectionError("no answer\nfor 120 s")

    monkeypatch.setattr(logger, "log_trial_result", refuse)
    shown.on_trial_start(1, [], trial(0))
    for epoch in (1, 2):
        shown.on_trial_result(2, [], trial(0), result(epoch, 0.4, best=0.4))
    shown.on_trial_complete(3, [], trial(0))
    error = " ".join(capsys.readouterr().err.split())
    assert error == "--log tensorboard failed, and the search goes on without it: no answer"
    assert [event[0] for event in logger.events] == ["start"]


def test_tensorboard_has_a_run_a_trial_with_curves_by_their_names(tmp_path: Path) -> None:
    (shown,) = loggers(tmp_path, "tensorboard")
    shown.setup()
    shown.on_trial_start(1, [], trial(3))
    for epoch, accuracy in enumerate([0.4, 0.3], start=1):
        shown.on_trial_result(2, [], trial(3), result(epoch, accuracy, best=0.4))
    shown.on_trial_complete(3, [], trial(3))
    (file,) = (tmp_path / "tensorboard" / "3").iterdir()
    curves: dict[str, list[tuple[int, float]]] = {}
    hparams = set()
    for event in read_events(file):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                hparams.add(value.tag)
            else:
                curves.setdefault(value.tag, []).append((event.step, round(value.simple_value, 3)))
    assert curves == {
        "validation_accuracy": [(1, 0.4), (2, 0.3)],
        "train_loss": [(1, 1.5), (2, 1.5)],
        "best_validation_accuracy": [(1, 0.4), (2, 0.4)],
    }
    assert "_hparams_/session_start_info" in hparams
    assert b"schedule.step_at" in file.read_bytes() and b"model.dropout" in file.read_bytes()


def read_events(file: Path) -> list[Event]:
    """Records of TensorFlow: length, its checksum, the event, its checksum."""
    content, events = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events
