"""A search whose trials take their accuracies from a script, for tests of what becomes of them."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from ray import cloudpickle

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.config.tune_options import TuneOptions
from fer_ray.dataset.store import PreparedDataset
from fer_ray.inference.checkpoint import CheckpointInfo, load_training_state
from fer_ray.search.on_ray.trial import TrainFunction
from fer_ray.search.plan import Allocation, Costs
from fer_ray.search.request import SearchRequest, check_request
from fer_ray.search.trial_cost import TrialCost
from fer_ray.training.profile import Stopwatch
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, Snapshot
from fer_ray.tune import TuneResult, search

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests

SPACE = """
model: {name: cnn3, dropout: 0.5}
optimizer: {name: adam, learning_rate: 0.001}
schedule: {first_size: 1}
training: {epochs: 3, max_failures: 1}
search:
  model.dropout: {uniform: [0.2, 0.7]}
  optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
"""


@dataclass
class Scripted:
    """A stand-in for ``fit`` that takes its accuracies from a script, a line for each call in turn.

    Where a line holds something else than a number, it is called. A call that goes on has a line of what is left.
    """

    script: list[list[float | Callable[[], None]]]
    calls: Path

    def __call__(
        self, config: Config, data: TrainingData, report: Callable[..., None], *, resume_from: Path | None
    ) -> None:
        call = len(list(self.calls.iterdir()))
        (self.calls / str(call)).touch()
        history = load_training_state(resume_from)["history"] if resume_from else []
        for step in self.script[call]:
            if callable(step):
                step()
                continue
            metrics = {"epoch": 1.0 + len(history), "validation_accuracy": step, "validation_macro_f1": step / 2}
            metrics |= {"seconds": 1.0}
            history = [*history, metrics]
            report(metrics, made_snapshot(config, data, history))


def made_snapshot(config: Config, data: TrainingData, history: list[Metrics]) -> Snapshot:
    """Return the state of a run with new weights after the epochs of a history."""
    info, fingerprint = data.info, data.info.fingerprint
    fields = info.model_dump(include={"mean", "std", "size"}) | {"epoch": int(history[-1]["epoch"])}
    description = CheckpointInfo(config=config, metrics=history[-1], dataset_fingerprint=fingerprint, **fields)
    weights = models.build(config.model, info.size).state_dict()
    circumstances = {"device": "cpu", "precision": "float32", "workers": 1, "mapped": False}
    stopwatch, validated = Stopwatch(torch.device("cpu")), (np.empty((0, 7)), np.empty(0, int))
    return Snapshot(history, stopwatch, weights, description, {"history": history}, circumstances, validated)


class Search:
    """A search in a fresh folder, one trial at a time, with a scripted objective."""

    def __init__(self, dataset: PreparedDataset, folder: Path):
        self.dataset, self.run, self.calls, self.space = dataset, folder / "run", folder / "calls", folder / "s.yaml"
        self.calls.mkdir()
        self.images = 0  # that its trials have trained, if somebody counts them
        self.space.write_text(SPACE)

    def request(self, trials: int, **options: Any) -> SearchRequest:
        return check_request(
            TuneOptions(self.dataset.path, [self.space], self.run, trials, max_concurrent=1, **options)
        )

    def __call__(
        self, *script: list[float | Callable[[], None]], trials: int | None = None, resume: bool = False, **options: Any
    ) -> TuneResult:
        """Run as many trials as the script has lines, or as many as are named where some of them don't count."""
        for file in self.calls.iterdir():
            file.unlink()
        objective: TrainFunction = Scripted(list(script), self.calls)
        requested = (self.counted() if resume else 0) + (len(script) if trials is None else trials)
        return search(self.request(requested, resume=resume, **options), objective, cost_nothing)

    def study(self) -> optuna.Study:
        storage = f"sqlite:///{self.run / 'study.db'}"
        name = json.loads((self.run / "study.json").read_text())["study"]
        return optuna.load_study(study_name=name, storage=storage)

    def counted(self) -> int:
        return sum(trial.state.is_finished() and "interrupted" not in trial.user_attrs for trial in self.study().trials)

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study().trials]


def cost_nothing(request: SearchRequest, data: TrainingData, allocation: Allocation) -> Costs:
    """Stand in for a measured step."""
    return {name: TrialCost(1e-3, 1e-3, 0.1, 1 << 20) for name in request.spaces}
