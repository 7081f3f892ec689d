"""What a search of many trials costs: the driver's memory, the database, and the time between trials.

    python tests/benchmarks/search_many.py --dataset DATASET --trials 500

The trials train nothing: each reports one epoch with an accuracy that follows from its parameters, and the checkpoint
of an untrained network. After each 50, the driver's memory (USS: what no other process shares), and the seconds a trial
since the last line: in all, and those in which the driver wrote to the study's database, read from it, and drew
parameters (with the reads of that).
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
import torch
from optuna.storages import RDBStorage

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.inference.checkpoint import CheckpointInfo, save_checkpoint
from fer_ray.search.on_ray.trial_listener import TrialListener
from fer_ray.search.request import SearchArguments, check_request
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord
from fer_ray.training.metrics import Metrics
from fer_ray.training.profile import RunProfile, Stopwatch
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Report
from fer_ray.tune import search

EVERY = 50
WRITES = (
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_study_system_attr",
)
READS = ("_get_trials", "get_trial", "get_study_user_attrs", "get_study_system_attrs")
SPACE = """
model: {name: lenet, dropout: 0.5}
training: {epochs: 1}
search:
  model.dropout: {uniform: [0.0, 0.7]}
  optimizer.learning_rate: {log_uniform: [0.01, 0.5]}
  loss.class_weight_power: {uniform: [0.0, 1.0]}
  optimizer.weight_decay: {log_uniform: [1.0e-6, 1.0e-2]}
"""


@dataclass
class Snapshot:
    """Of an untrained network, as ``fit`` reports it."""

    info: CheckpointInfo
    history: list[Metrics]

    def save(self, folder: Path, resumable: bool = False) -> None:
        """Write it as that of a trained one."""
        weights = models.build(self.info.config.model, self.info.size).state_dict()
        save_checkpoint(folder, weights, self.info, {"history": self.history} if resumable else None)

    @property
    def stopwatch(self) -> Stopwatch:
        """One that measured nothing."""
        return Stopwatch(torch.device("cpu"))

    def profile(self) -> RunProfile:
        """Return an empty profile."""
        return RunProfile(device="cpu", precision="float32", workers=1, streamed=False, seconds={})


def train_nothing(config: Config, data: TrainingData, report: Report, *, resume_from: Path | None) -> None:
    """Report an epoch at once."""
    accuracy = 1 - abs(config.model.dropout - 0.3) - abs(config.loss.class_weight_power - 0.5) / 2
    metrics = {"epoch": 1.0, "seconds": 0.0, "validation_accuracy": accuracy, "validation_macro_f1": accuracy}
    info = CheckpointInfo(
        config=config,
        mean=data.info.mean,
        std=data.info.std,
        size=data.info.size,
        epoch=1,
        metrics=metrics,
        dataset_fingerprint=data.info.fingerprint,
    )
    report(metrics, Snapshot(info, [metrics]))  # type: ignore[arg-type]  # as much of one as is looked at


class Clock:
    """Adds up the seconds in calls, by kind; calls within calls of the same kind count once."""

    def __init__(self) -> None:
        self.seconds, self._inside = defaultdict[str, float](float), set[str]()

    def watch(self, owner: type, name: str, kind: str) -> None:
        """Measure a method from now on."""
        plain = getattr(owner, name)

        @wraps(plain)
        def timed(*arguments: Any, **options: Any) -> Any:
            if kind in self._inside:
                return plain(*arguments, **options)
            self._inside.add(kind)
            began = time.perf_counter()
            try:
                return plain(*arguments, **options)
            finally:
                self._inside.remove(kind)
                self.seconds[kind] += time.perf_counter() - began

        setattr(owner, name, timed)


def print_each(clock: Clock) -> Callable[[], None]:
    """Return what is to be called after each trial: it prints a line after every 50."""
    finished, began = 0, time.perf_counter()

    def one_more() -> None:
        nonlocal finished, began
        finished += 1
        if finished % EVERY == 0:
            now = time.perf_counter()
            each = {kind: 1000 * seconds / EVERY for kind, seconds in clock.seconds.items()}
            own = psutil.Process().memory_full_info().uss / 2**20
            print(
                f"{finished:4} trials: {own:6.1f} MiB; a trial {1000 * (now - began) / EVERY:6.1f} ms,"
                f" of which writing {each['write']:5.1f} ms, reading {each['read']:5.1f} ms, drawing"
                f" {each['draw']:5.1f} ms",
                flush=True,
            )
            clock.seconds.clear()
            began = now

    return one_more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="a prepared dataset; some hundred rows do")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--storage", help="the study's database; default a file")
    parser.add_argument("--sampler", default="tpe")
    arguments = parser.parse_args()
    clock = Clock()
    for names, kind in ((WRITES, "write"), (READS, "read")):
        for name in names:
            clock.watch(RDBStorage, name, kind)
    clock.watch(Study, "ask", "draw")
    one_more, close = print_each(clock), TrialListener._closed

    def closed(listener: TrialListener, record: TrialRecord) -> None:
        close(listener, record)
        one_more()

    TrialListener._closed = closed  # type: ignore[method-assign]
    print(f"{platform.processor() or platform.machine()}, {arguments.sampler}")
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        space.write_text(SPACE)
        request = check_request(
            SearchArguments(
                arguments.dataset,
                [space],
                Path(folder) / "run",
                arguments.trials,
                storage=arguments.storage,
                sampler=arguments.sampler,
                scheduler="none",
            )
        )
        began = time.perf_counter()
        search(request, train_nothing)
        print(f"{arguments.trials} trials in {time.perf_counter() - began:.0f} s, start-up included")


if __name__ == "__main__":
    main()
