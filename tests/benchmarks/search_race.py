"""Three ways to search for the same time: fer-ray tune, Optuna alone, and Ray Tune with OptunaSearch and ASHA.

    python tests/benchmarks/search_race.py --dataset DATASET --minutes 15 --repeats 3

All search the same space over the same rows with this package's training loop, and take turns in processes of their own
that have the whole machine:

- ``ours``: what ``fer-ray tune`` does with its defaults;
- ``optuna``: a study as in Optuna's PyTorch example: TPE and the median pruner, its defaults, the trials one after the
  other in one process with PyTorch's threads on all cores;
- ``ray``: ``OptunaSearch`` and ``ASHAScheduler`` in a ``Tuner`` as in Ray's documentation and its PyTorch tutorial:
  a core a trial, ASHA from the first epoch on with a reduction of 2, and a checkpoint with the optimizer's state after
  each epoch. The rows are placed in the object store once, which the documentation advises and the tutorial doesn't do.

The time begins with the process, imports and Ray's start included, and is the same for all: an epoch counts whose
validation is over by its end. Of each are printed the best validation accuracy, the trials by how they ended, the
images trained, and the share of the time that as many trials as run at once were in epochs, from the moment at which
so many had begun, without the epochs that the end cut off; then the ratios of the images, ours over each. Who comes
first changes from repeat to repeat.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from epoch_journal import Entry, Journal, all_begun, busy_share
from ray import cloudpickle

from fer_ray.config.files import load_search_space
from fer_ray.config.search_space import SearchSpace
from fer_ray.dataset.store import PreparedDataset
from fer_ray.errors import UsageError
from fer_ray.training.metrics import Metrics
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Snapshot

CONTESTANTS = ("ours", "optuna", "ray")
AT_ONCE = {"ours": os.cpu_count() or 1, "optuna": 1, "ray": os.cpu_count() or 1}
DRAWN = ("uniform", "log_uniform", "int", "categorical")
cloudpickle.register_pickle_by_value(sys.modules["epoch_journal"])  # workers don't find the folder of the benchmarks


def ours(space: SearchSpace, arguments: argparse.Namespace, journal: Journal, folder: Path) -> None:
    """Run what ``fer-ray tune`` runs, with the journal around the training."""
    from fer_ray.options import TuneOptions
    from fer_ray.search.request import check_request
    from fer_ray.tune import search

    budget = f"{arguments.deadline - time.time():.0f}s"
    overrides = [f"training.epochs={arguments.epochs}"]
    request = check_request(
        TuneOptions(
            arguments.dataset, [arguments.space], folder / "run", 10_000, time_budget=budget, overrides=overrides
        )
    )
    with suppress(UsageError):  # where no trial is complete; what it trained counts all the same
        search(request, journal)


def optuna_alone(space: SearchSpace, arguments: argparse.Namespace, journal: Journal, folder: Path) -> None:
    """Run trials one after the other, in this process."""
    import optuna

    data = TrainingData.load(PreparedDataset(arguments.dataset))

    def objective(trial: optuna.Trial) -> float:
        values = {path: suggest(trial, path, kind.kind, kind.values) for path, kind in space.search.items()}
        accuracies: list[float] = []

        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            accuracies.append(metrics["validation_accuracy"])
            trial.report(accuracies[-1], int(metrics["epoch"]))
            if trial.should_prune() or time.time() > arguments.deadline:
                raise optuna.TrialPruned

        journal(space.with_values(values), data, report)
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
        def report(metrics: Metrics, snapshot: Snapshot) -> None:
            with tempfile.TemporaryDirectory() as own:
                snapshot.save(Path(own) / "checkpoint", resumable=True)
                checkpoint = tune.Checkpoint.from_directory(own)
                tune.report({"accuracy": metrics["validation_accuracy"]}, checkpoint=checkpoint)

        journal(space.with_values(params), data, report)

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
    """Return the space that all search, one that each of them can express."""
    space = load_search_space(arguments.space, [f"training.epochs={arguments.epochs}"])
    others = [path for path, kind in space.search.items() if kind.kind not in DRAWN]
    if others:
        sys.exit(f"{arguments.space}: {', '.join(others)}: OptunaSearch knows no choices. Leave them out.")
    return space


def race(name: str, arguments: argparse.Namespace, journal: Journal) -> float:
    """Run a contestant in a process of its own, and return the moment at which its time was over."""
    deadline = time.time() + 60 * arguments.minutes
    command = [sys.executable, *sys.argv, "--contestant", name, "--deadline", str(deadline)]
    # Ray starts workers at niceness 15, to which fer-ray alone says no: that would compare the rest of the machine.
    environment = os.environ | {"RAY_worker_niceness": "0"}
    ended = subprocess.run([*command, "--journal", str(journal.file)], capture_output=True, text=True, env=environment)
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr[-3000:]}")
    return deadline


def describe(name: str, trials: dict[str, list[Entry]], deadline: float) -> str:
    """Return what a contestant came to as one line."""
    complete = sum(entries[-1].epoch == entries[-1].epochs for entries in trials.values())
    at_once = AT_ONCE[name]
    running = min(at_once, len(trials) - complete)
    share = busy_share(trials, all_begun(trials, at_once), deadline, at_once) if images(trials) else 0.0
    best = max((entry.accuracy for entries in trials.values() for entry in entries), default=0.0)
    return (
        f"{name}: best {best:.2%}, {len(trials)} trials begun: {complete} complete,"
        f" {len(trials) - complete - running} stopped early, {running} running; {images(trials):,} images;"
        f" in epochs {share:.1%} of the time"
    )


def images(trials: dict[str, list[Entry]]) -> int:
    """Sum up the images of all epochs."""
    return sum(entry.images for entries in trials.values() for entry in entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=Path(__file__).parents[2] / "search_spaces" / "fast.yaml")
    parser.add_argument("--epochs", type=int, default=9, help="of a whole trial; 26 would leave one to 15 minutes")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        run_one(arguments)
        return
    arguments.dataset = arguments.dataset.absolute()
    space = space_of(arguments)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__};", end=" "
    )
    print(f"{space.model.name}, {arguments.epochs} epochs a trial, {arguments.minutes:g} minutes each", flush=True)
    trained: dict[str, list[int]] = {name: [] for name in CONTESTANTS}
    for repeat in range(arguments.repeats):
        for place in range(len(CONTESTANTS)):
            name = CONTESTANTS[(repeat + place) % len(CONTESTANTS)]
            with tempfile.TemporaryDirectory() as folder:
                journal = Journal(Path(folder) / "epochs.jsonl")
                journal.file.touch()
                deadline = race(name, arguments, journal)
                trials = journal.read(deadline)
            trained[name].append(images(trials))
            print(f"{repeat + 1} {describe(name, trials, deadline)}", flush=True)
            if not trained[name][-1]:
                sys.exit(f"{name}: no epoch was over in {arguments.minutes:g} minutes. Give more --minutes.")
    for name in CONTESTANTS[1:]:
        ratios = [mine / other for mine, other in zip(trained["ours"], trained[name], strict=True)]
        print(
            f"images, ours over {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}),"
            f" n = {len(ratios)}"
        )


if __name__ == "__main__":
    main()
