"""Search hyperparameters and architectures: Ray Tune runs the trials, an Optuna study chooses and remembers them."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import ray
import torch
import typer
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from fer_ray import runtime
from fer_ray.config import Config
from fer_ray.errors import FerRayError, UsageError
from fer_ray.files import local_path
from fer_ray.learning.loop import Metrics, Report, Snapshot, TrainingData, fit
from fer_ray.learning.search import SearchRequest, Share, check_request, share_out
from fer_ray.learning.search_folder import SearchFolder
from fer_ray.learning.study import Study, TrialRecord, value_at
from fer_ray.progress import ProgressBar, duration, say

Objective = Callable[[Config, TrainingData, Report], None]
"""Trains a configuration and reports each epoch, as ``fit`` does."""

REDUCTION = 3
FIRST_RUNG = 100 / 9
"""A trial goes on only among the best third of those that came as far: at 1/9 and 1/3 of its epochs (percent)."""

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the study is the truth; Tune's own state is never read
}


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        best: the complete trial with the best validation accuracy.
        checkpoint: its checkpoint folder.
        config_file: its configuration, for ``train --config``.
        trials: all finished trials, by number.
    """

    best: TrialRecord
    checkpoint: Path
    config_file: Path
    trials: list[TrialRecord]


def tune(
    dataset: Path | str,
    spaces: Sequence[Path | str],
    output: Path | str,
    *,
    trials: int,
    time_budget: str | None = None,
    storage: str | None = None,
    max_concurrent: int | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
) -> TuneResult:
    """Search for the configuration with the best validation accuracy, and keep its checkpoint.

    Args:
        dataset: a folder that ``prepare`` wrote, with a validation split.
        spaces: YAML files with a ``search:`` section; with several, the search chooses among them too.
        output: the search's folder; new or empty, or an earlier search's with ``resume``.
        trials: finished trials that the study shall have in the end, those of earlier calls included.
        time_budget: such as ``90s``, ``30m`` or ``2h``; after it no trial starts, and running ones are stopped.
        storage: database URL of the study; None for ``study.db`` in the output folder.
        max_concurrent: trials at once; None for one a GPU or CPU core.
        resume: go on with an earlier search, or add trials to a finished one.
        overrides: ``path.to.field=value`` changes to every space.

    Raises:
        UsageError: wrong arguments or spaces, all at once; a request that the cluster can't fit; no trial finished.
        DataError: the dataset can't be read, or isn't the one that the earlier search used.
    """
    request = check_request(
        local_path(dataset), spaces, output, trials, time_budget, storage, max_concurrent, resume, overrides
    )
    return search(request, fit)


def search(request: SearchRequest, objective: Objective) -> TuneResult:
    """Run a checked search with the given training function; ``tune`` passes ``fit``."""
    folder = SearchFolder(request.run)
    name = folder.study_name() if request.resume else folder.begin()
    with folder.locked():
        study = (Study.load if request.resume else Study.create)(
            name,
            request.storage or folder.database,
            request.spaces,
            request.dataset.info.fingerprint,
            request.max_concurrent or 2,
        )
        study.fail_interrupted()
        folder.keep_best(study)
        try:
            left = request.trials - study.counted()
            if left > 0:
                _run_trials(request, study, folder, left, objective)
        finally:
            folder.write_table(study)
        return _result(study, folder)


def plan(request: SearchRequest) -> Share:
    """Connect to Ray and share out its nodes.

    Raises:
        UsageError: the trials don't fit; the message shows the arithmetic.
    """
    runtime.connect()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = share_out(nodes, request.trials, request.max_concurrent)
    runtime.require(share.concurrent, share.resources, "trials at once")
    return share


def _run_trials(request: SearchRequest, study: Study, folder: SearchFolder, left: int, objective: Objective) -> None:
    share = plan(request)
    data = TrainingData(request.dataset.load("train"), request.dataset.load("validation"), request.dataset.info)
    work = ray_tune.with_parameters(
        _run_trial, data=data, objective=objective, folder=folder.scratch, threads=share.threads
    )
    scheduler = _Asha(study.records())
    with ProgressBar("searching", request.trials, "trials", study.counted()) as bar, _Stop(request.time_budget) as stop:
        recorder = _Recorder(study, folder, bar)
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(work, share.resources),
            tune_config=ray_tune.TuneConfig(
                search_alg=_StudySearcher(study),
                scheduler=scheduler,
                num_samples=left,
                max_concurrent_trials=share.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=ray_tune.RunConfig(
                name="tune", storage_path=str(folder.ray), stop=stop, callbacks=[recorder], verbose=0
            ),
        )
        with _quiet_tune():
            tuner.fit()
        recorder.close_stopped(interrupted=stop.interrupted)
        if stop.interrupted:
            raise KeyboardInterrupt


def _run_trial(params: dict[str, Any], data: TrainingData, objective: Objective, folder: Path, threads: int) -> None:
    """Train one candidate in a trial's process, its best checkpoint going to ``folder/NUMBER``."""
    torch.set_num_threads(threads)
    config, best = Config.model_validate_json(params["config"]), -1.0

    def report(metrics: Metrics, snapshot: Snapshot) -> None:
        nonlocal best
        best = max(best, metrics["validation_accuracy"])
        if snapshot.is_best:
            snapshot.save(folder / str(params["number"]))
        progress = 100 * metrics["epoch"] / config.training.epochs
        ray_tune.report({"metrics": metrics, "best": best, "progress": progress})

    try:
        if not folder.parent.is_dir():
            raise UsageError(
                f"{folder.parent}: not visible on {os.uname().nodename}. Put it on a disk all nodes share."
            )
        objective(config, data, report)
    except FerRayError as error:  # reported, not raised: the process stays good for the next trial
        ray_tune.report({"error": str(error), "best": best, "progress": 0.0})


class _StudySearcher(Searcher):
    """Gives Ray Tune the study's candidates; what becomes of them is ``_Recorder``'s."""

    def __init__(self, study: Study):
        super().__init__(metric="best", mode="max")
        self._study = study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        candidate = self._study.ask()
        return {"number": candidate.number, "config": candidate.config.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


class _Asha(ASHAScheduler):
    """Asynchronous successive halving (Li et al., arXiv 1810.05934) over the share of a trial's own epochs.

    Shares, not epochs: spaces differ in length, and a learning rate that falls to 0 makes the same epoch of a shorter
    run look better. A trial in its last epoch is never stopped. Starts from what earlier calls have measured.
    """

    def __init__(self, former: list[TrialRecord]):
        super().__init__(
            time_attr="progress",
            metric="best",
            mode="max",
            max_t=100,
            grace_period=FIRST_RUNG,
            reduction_factor=REDUCTION,
        )
        for record in former:
            trial = SimpleNamespace(trial_id=f"former-{record.number}")
            self.on_trial_add(None, trial)
            for epoch in range(1, len(record.accuracies) + 1):
                progress = 100 * epoch / record.config.training.epochs
                self.on_trial_result(None, trial, {"progress": progress, "best": max(record.accuracies[:epoch])})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["progress"] >= 100 or "error" in result:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


class _Recorder(ray_tune.Callback):
    """Tells the study what becomes of each trial, keeps the best checkpoint and says a line a trial."""

    def __init__(self, study: Study, folder: SearchFolder, bar: ProgressBar):
        self._study, self._folder, self._bar = study, folder, bar
        self._stopped: set[int] = set()
        self._errors: dict[int, str] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "error" in result:
            self._errors[number] = result["error"]
            return
        self._study.report(number, result["metrics"])
        if result["done"]:  # set by the scheduler's decision alone: a trial that ends by itself reports nothing more
            self._stopped.add(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._errors:
            self._close(self._study.fail(number, self._errors[number]))
        elif number in self._stopped:
            self._close(self._study.prune(number))
        else:
            self._close(self._study.complete(number))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() or trial.get_error()
        self._close(self._study.fail(trial.config["number"], str(getattr(error, "cause", error)).strip()))

    def close_stopped(self, interrupted: bool) -> None:
        """Close the trials that were running when the search was stopped."""
        if interrupted:
            self._study.fail_interrupted()
        for number in self._study.running():
            self._close(self._study.prune(number))

    def _close(self, record: TrialRecord) -> None:
        self._folder.keep_best(self._study)
        best = self._study.best()
        self._bar.advance(1, f"best {best.value:.2%}" if best else "")
        say(describe(record, self._study))


class _Stop(ray_tune.Stopper):
    """Ends a search when its time is over or at Ctrl-C, between two steps of Tune rather than within one."""

    def __init__(self, seconds: float | None):
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.interrupted = False

    def __enter__(self) -> "_Stop":
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._former = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def _interrupt(self, number: int, frame: Any) -> None:
        self.interrupted = True
        say("Interrupted: stopping the running trials. Ctrl-C again to leave at once.")
        signal.signal(signal.SIGINT, self._former)

    def __exit__(self, *error: object) -> None:
        if self._in_main:
            signal.signal(signal.SIGINT, self._former)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.interrupted or (self._deadline is not None and time.monotonic() > self._deadline)


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Turn off Ray Tune's console output and its own files of results."""
    former = {name: os.environ.get(name) for name in _QUIET}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_QUIET)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in former.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def describe(record: TrialRecord, study: Study) -> str:
    """Return a finished trial as one line."""
    values = [f"{path} {_short(value_at(record.config, path))}" for path in study.spaces[record.space].search]
    shown = "" if record.value is None else f" {record.value:.2%}"
    time_spent = f"{len(record.accuracies)} epochs, {duration(record.seconds or 0)}"
    line = f"trial {record.number} {record.state}{shown}: {record.space}, {', '.join(values)}; {time_spent}"
    return f"{line}; {record.error}" if record.error else line


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _result(study: Study, folder: SearchFolder) -> TuneResult:
    records, best = study.records(), study.best()
    if best is None:
        first = next((record.error for record in records if record.error), None)
        why = f"the first failed with: {first}" if first else "all were stopped early; give more --time-budget"
        raise UsageError(f"{folder.path}: none of {len(records)} trials trained to its end: {why}")
    folder.finish(best)
    return TuneResult(best, folder.best, folder.best_config, records)


def describe_plan(request: SearchRequest, share: Share) -> str:
    """Return what a search would do, for ``--dry-run``."""
    each = ", ".join(f"{amount:g} {name}" for name, amount in share.resources.items())
    budget = "" if request.time_budget is None else f", for at most {duration(request.time_budget)}"
    lines = [
        f"{request.trials} trials{budget}, {share.concurrent} at once ({share.reason}), each with {each}",
        f"dataset: {request.dataset.path}; objective: best validation accuracy over a trial's epochs",
    ]
    for name, space in request.spaces.items():
        lines.append(f"space {name}: {space.model.name}, {space.training.epochs} epochs")
        for path, distribution in space.search.items():
            values = ", ".join(_short(value) for value in distribution.values)
            lines.append(f"  {path}: {distribution.kind} [{values}], first {_short(value_at(space, path))}")
    lines.append(f"output: {request.run}: study.db, trials.parquet, best.yaml, best/")
    return "\n".join(lines)


def command(
    dataset: Annotated[Path, typer.Option(help="Prepared dataset, from `fer-ray prepare`.")],
    space: Annotated[list[str], typer.Option(help="YAML search space; several to choose among architectures.")],
    trials: Annotated[int, typer.Option(help="Finished trials that the study shall have in the end.")],
    output: Annotated[Path, typer.Option(help="Folder of the search; new, or an earlier one with --resume.")],
    time_budget: Annotated[str | None, typer.Option(help="Stop after so long, such as 90s, 30m or 2h.")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL of the study; default OUTPUT/study.db.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at once; default one a GPU or CPU core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search, or add trials to it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change every space: path.to.field=value.")] = None,
) -> None:
    """Search hyperparameters and architectures for the best validation accuracy."""
    request = check_request(
        local_path(dataset), space, output, trials, time_budget, storage, max_concurrent, resume, set_ or []
    )
    if dry_run:
        print(describe_plan(request, plan(request)))
        return
    result = search(request, fit)
    states = [record.state for record in result.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL"))
    print(f"best: trial {result.best.number}, validation accuracy {result.best.value:.2%}, {result.best.space}")
    print(f"{len(states)} trials ({counts}); checkpoint: {result.checkpoint}; configuration: {result.config_file}")


if __name__ == "__main__":
    from fer_ray.cli import main

    main(["tune", *sys.argv[1:]])
