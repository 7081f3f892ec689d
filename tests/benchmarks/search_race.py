"""Three ways to search for the same time: fer-ray tune, Optuna alone, and Ray Tune with OptunaSearch and ASHA.

    python tests/benchmarks/search_race.py --dataset DATASET --minutes 15 --repeats 3

All search the same space over the same rows with this package's training loop, and take turns in processes of their own
that have the whole machine:

- ``ours``: what ``fer-ray tune`` does with its defaults;
- ``optuna``: a study as in Optuna's PyTorch example: TPE and the median pruner, its defaults, the trials one after the
  other in one process with PyTorch's threads on all cores;
- ``ray``: ``OptunaSearch`` and ``ASHAScheduler`` in a ``Tuner`` as in Ray's documentation and its PyTorch tutorial:
  a core a trial, ASHA from the first epoch on with a reduction of 2, and a checkpoint with the optimizer's state after
  each epoch. The rows are put into the object store once, as the documentation advises.

The time begins with the process, imports and Ray's start included, and is the same for all: an epoch counts if its
validation ends in time. Printed are the best validation accuracy, the trials by how they ended, the images trained, and
the share of the time that the concurrent trials spent in epochs, from the moment at which all of them had begun; then
the ratios of the images, ours over each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import machine, options, spread

from fer_ray.config.files import load_search_space
from fer_ray.config.paths import with_values
from fer_ray.config.search_space import SearchSpace
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.training.loop import fit
from fer_ray.training.rows import TrainingData

CONTESTANTS = ("ours", "optuna", "ray")
AT_ONCE = {"ours": os.cpu_count() or 1, "optuna": 1, "ray": os.cpu_count() or 1}


@dataclass(frozen=True)
class Entry:
    """An epoch; ``epoch`` 0 is the beginning of a trial.

    Attributes:
        moment: of the machine's clock in seconds, before the epoch is reported.
        seconds: spent in it, training and validating.
        images: trained on in it.
    """

    trial: str
    process: int
    moment: float
    epoch: int
    epochs: int
    accuracy: float = 0.0
    seconds: float = 0.0
    images: int = 0


@dataclass(frozen=True)
class Journal:
    """Trains as ``fit`` does, and notes each epoch in a file that all processes of the machine share."""

    file: Path

    def __call__(self, config: Any, data: TrainingData, report: Any, *, resume_from: Path | None = None) -> None:
        trial, epochs = uuid.uuid4().hex, config.training.epochs
        self._note(Entry(trial, os.getpid(), time.time(), 0, epochs))

        def noted(metrics: Any, snapshot: Any) -> None:
            figures = metrics["validation_accuracy"], metrics["seconds"], len(data.train)
            self._note(Entry(trial, os.getpid(), time.time(), int(metrics["epoch"]), epochs, *figures))
            report(metrics, snapshot)

        fit(config, data, noted, resume_from=resume_from)

    def _note(self, entry: Entry) -> None:
        with self.file.open("a") as file:  # a line this short is appended as a whole
            file.write(json.dumps(vars(entry)) + "\n")

    def read(self, until: float) -> dict[str, list[Entry]]:
        """Return the entries of each trial up to a moment, in order."""
        trials = defaultdict(list)
        for line in self.file.read_text().splitlines():
            entry = Entry(**json.loads(line))
            if entry.moment <= until:
                trials[entry.trial].append(entry)
        return trials


def busy_share(trials: dict[str, list[Entry]], at_once: int, end: float) -> float:
    """Return the share of the time that concurrent trials spent in epochs, since all of them had begun."""
    epochs = [entry for entries in trials.values() for entry in entries if entry.epoch]
    begun = dict[int, float]()
    for entry in epochs:
        begun[entry.process] = min(begun.get(entry.process, entry.moment), entry.moment - entry.seconds)
    begin = sorted(begun.values())[min(at_once, len(begun)) - 1]
    spent = sum(max(0.0, min(one.moment, end) - max(one.moment - one.seconds, begin)) for one in epochs)
    return spent / (end - begin) / at_once


def ours(space: SearchSpace, arguments: argparse.Namespace, journal: Journal, folder: Path) -> None:
    """Run what ``fer-ray tune`` runs, with the journal around the training."""
    from fer_ray.config.tune_options import TuneOptions
    from fer_ray.search.request import check_request
    from fer_ray.tune import search

    budget = f"{arguments.deadline - time.time():.0f}s"
    overrides = [f"training.epochs={arguments.epochs}"]
    request = check_request(
        TuneOptions(
            arguments.dataset, [arguments.space], folder / "run", 10_000, time_budget=budget, overrides=overrides
        )
    )
    with suppress(UsageError):  # no trial is complete; its epochs count
        search(request, journal)


def optuna_alone(space: SearchSpace, arguments: argparse.Namespace, journal: Journal, folder: Path) -> None:
    """Run trials one after the other, in this process."""
    import optuna

    data = TrainingData.load(PreparedDataset(arguments.dataset))

    def objective(trial: optuna.Trial) -> float:
        values = {path: suggest(trial, path, kind.kind, kind.values) for path, kind in space.search.items()}
        accuracies: list[float] = []

        def report(metrics: Any, snapshot: Any) -> None:
            accuracies.append(metrics["validation_accuracy"])
            trial.report(accuracies[-1], int(metrics["epoch"]))
            if trial.should_prune() or time.time() > arguments.deadline:
                raise optuna.TrialPruned

        journal(with_values(space, values), data, report)
        return max(accuracies)

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, timeout=arguments.deadline - time.time())


def suggest(trial: Any, path: str, kind: str, values: tuple[Any, ...]) -> Any:
    """Draw a value as the space says."""
    if kind == "categorical":
        return trial.suggest_categorical(path, values)
    if kind == "int":
        return trial.suggest_int(path, *values)
    return trial.suggest_float(path, *values, log=kind == "log_uniform")


def ray_as_documented(space: SearchSpace, arguments: argparse.Namespace, journal: Journal, folder: Path) -> None:
    """Run ``OptunaSearch`` and ``ASHAScheduler``."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(params: dict[str, Any], data: TrainingData) -> None:
        def report(metrics: Any, snapshot: Any) -> None:
            with tempfile.TemporaryDirectory() as own:
                snapshot.save(Path(own) / "checkpoint", resumable=True)
                checkpoint = tune.Checkpoint.from_directory(own)
                tune.report({"accuracy": metrics["validation_accuracy"]}, checkpoint=checkpoint)

        journal(with_values(space, params), data, report)

    makers = {
        "uniform": tune.uniform,
        "log_uniform": tune.loguniform,
        "int": lambda low, high: tune.randint(low, high + 1),
        "categorical": lambda *values: tune.choice(list(values)),
    }
    ray.init("local", log_to_driver=False, include_dashboard=False)
    data = TrainingData.load(PreparedDataset(arguments.dataset))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, data=data), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=space.training.epochs, grace_period=1, reduction_factor=2),
            num_samples=-1,
            time_budget_s=arguments.deadline - time.time(),
        ),
        param_space={path: makers[kind.kind](*kind.values) for path, kind in space.search.items()},
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    tuner.fit()


def run_one(arguments: argparse.Namespace) -> None:
    """Run a contestant in this process until the deadline."""
    ways = {"ours": ours, "optuna": optuna_alone, "ray": ray_as_documented}
    with tempfile.TemporaryDirectory() as folder:
        ways[arguments.contestant](space_of(arguments), arguments, Journal(arguments.journal), Path(folder))


def space_of(arguments: argparse.Namespace) -> SearchSpace:
    """Return the space that all search."""
    return load_search_space(arguments.space, [f"training.epochs={arguments.epochs}"])


def race(name: str, arguments: argparse.Namespace, journal: Journal) -> float:
    """Run a contestant in a process of its own, and return the moment at which its time was over."""
    deadline = time.time() + 60 * arguments.minutes
    command = [sys.executable, *sys.argv, "--contestant", name, "--deadline", str(deadline)]
    # Ray starts workers at niceness 15, which only fer-ray changes: that would measure the other work on the machine.
    environment = os.environ | {"RAY_worker_niceness": "0"}
    ended = subprocess.run([*command, "--journal", str(journal.file)], capture_output=True, text=True, env=environment)
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
    return deadline


def describe(name: str, trials: dict[str, list[Entry]], deadline: float) -> str:
    """Return a contestant's result as one line."""
    complete = sum(entries[-1].epoch == entries[-1].epochs for entries in trials.values())
    running = min(AT_ONCE[name], len(trials) - complete)
    best = max(entry.accuracy for entries in trials.values() for entry in entries)
    return (
        f"{name}: best {best:.2%}, {len(trials)} trials: {complete} complete, {running} running,"
        f" {len(trials) - complete - running} stopped early; {images(trials):,} images; in epochs"
        f" {busy_share(trials, AT_ONCE[name], deadline):.1%} of the time"
    )


def images(trials: dict[str, list[Entry]]) -> int:
    """Sum up the images of all epochs."""
    return sum(entry.images for entries in trials.values() for entry in entries)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=Path(__file__).parents[2] / "search_spaces" / "fast.yaml")
    parser.add_argument("--epochs", type=int, default=9, help="of a complete trial")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.dataset = arguments.dataset.absolute()
    if arguments.contestant:
        run_one(arguments)
        return
    space = space_of(arguments)
    print(
        f"{machine()}; {space.model.name}, {arguments.epochs} epochs a trial, {arguments.minutes:g} minutes", flush=True
    )
    trained: dict[str, list[int]] = {name: [] for name in CONTESTANTS}
    for repeat in range(arguments.repeats):
        turn = repeat % len(CONTESTANTS)
        for name in [*CONTESTANTS[turn:], *CONTESTANTS[:turn]]:
            with tempfile.TemporaryDirectory() as folder:
                journal = Journal(Path(folder) / "epochs.jsonl")
                journal.file.touch()
                deadline = race(name, arguments, journal)
                trials = journal.read(deadline)
            trained[name].append(images(trials))
            if not trained[name][-1]:
                sys.exit(f"{name}: no epoch ended within {arguments.minutes:g} minutes. Give more --minutes.")
            print(f"{repeat + 1} {describe(name, trials, deadline)}", flush=True)
    for name in CONTESTANTS[1:]:
        ratios = [mine / other for mine, other in zip(trained["ours"], trained[name], strict=True)]
        print(f"images, ours over {name}: {spread(ratios)}")


if __name__ == "__main__":
    main()
