"""The runs with new seeds on Ray Tune: as many at once as trials, each going on where an earlier call left it."""

from collections.abc import Sequence
from typing import Any

import torch
from ray import tune as ray_tune

from fer_ray.cluster import connect
from fer_ray.cluster.failures import FailureReader, advice
from fer_ray.cluster.memory import memory_errors
from fer_ray.console.interrupts import deferred_interrupt
from fer_ray.console.progress import ProgressBar, say
from fer_ray.console.text import duration
from fer_ray.errors import FerRayError
from fer_ray.inference.device import limit_gpu_memory, release_memory
from fer_ray.search.confirmation import SeedRun
from fer_ray.search.on_ray.tune_adapter import Stop, adapted_tune, run_to_its_end, worker_error
from fer_ray.search.plan import Allocation
from fer_ray.search.search_metric import SearchMetric
from fer_ray.search.trial_records import error_line
from fer_ray.search.trial_table import TrialTable
from fer_ray.storage.output import Output
from fer_ray.training.rows import TrainingData
from fer_ray.training.run_folder import Metrics, best_epoch


def train_seed_runs(
    runs: Sequence[SeedRun], data: TrainingData, allocation: Allocation, objective: SearchMetric, storage: Output
) -> dict[str, str]:
    """Train each run to its end.

    A worker that dies makes its run start again from the last epoch, ``training.max_failures`` times.

    Args:
        runs: that aren't finished, at least one.
        share: of the cluster, as for as many trials.
        storage: where Ray Tune may write; to be removed afterwards.

    Returns:
        The errors of those that failed, by name.

    Raises:
        KeyboardInterrupt: at Ctrl-C; each run's last finished epoch is kept.
        FerRayError: Ray has died; likewise.
    """
    named = {run.name: run for run in runs}
    gpu = allocation.resources.get("GPU", 0)
    work = ray_tune.with_parameters(_train, data=data, runs=named, threads=allocation.threads, gpu=gpu)
    epochs, done = (sum(count) for count in zip(*map(_epochs, runs), strict=True))
    running = TrialTable(objective)
    with (
        ProgressBar("confirming", epochs, "epochs", done, running) as bar,
        deferred_interrupt("Stopping the runs.") as interrupted,
        adapted_tune(),
    ):
        recorder = _SeedRunRecorder(named, bar, running, objective, FailureReader(allocation.concurrent, gpu))
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(work, allocation.resources),
            param_space={"run": ray_tune.grid_search(list(named))},
            tune_config=ray_tune.TuneConfig(
                max_concurrent_trials=allocation.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["run"]),
            ),
            run_config=ray_tune.RunConfig(
                name="confirm",
                **connect.ray_storage(storage),
                stop=Stop(None, interrupted),
                failure_config=ray_tune.FailureConfig(max_failures=runs[0].config.training.max_failures),
                callbacks=[recorder],
                verbose=0,
            ),
        )
        run_to_its_end(tuner)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return recorder.errors


def _epochs(run: SeedRun) -> tuple[int, int]:
    """How many a run has in all, and how many are done."""
    return run.config.training.epochs, len(run.folder.history())


def _train(params: dict[str, Any], data: TrainingData, runs: dict[str, SeedRun], threads: int, gpu: float) -> None:
    """Train one of the runs in a trial's process."""
    torch.set_num_threads(threads)
    connect.hide_unasked_gpus()
    limit_gpu_memory(gpu)
    run = runs[params["run"]]
    try:
        with memory_errors(advice(run.config.training)):
            run.train(data, lambda metrics: ray_tune.report({"metrics": metrics}))
    except FerRayError as error:  # reported, not raised: it would come again, and the process stays good for the next
        ray_tune.report({"error": str(error)})
    finally:
        run.folder.output.forget()
        release_memory()


class _SeedRunRecorder(connect.NotPickled, ray_tune.Callback):
    """Shows what becomes of the runs."""

    def __init__(
        self,
        runs: dict[str, SeedRun],
        bar: ProgressBar,
        running: TrialTable,
        objective: SearchMetric,
        failures: FailureReader,
    ):
        self.errors: dict[str, str] = {}
        self._runs, self._bar, self._running = runs, bar, running
        self._objective, self._failures = objective, failures
        self._done = {name: _epochs(run)[1] for name, run in runs.items()}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        run = self._runs[trial.config["run"]]
        self._running.began(run.name, run.trial.space, run.config.training.epochs)
        for metrics in run.folder.history():
            self._running.reported(run.name, metrics)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        name = trial.config["run"]
        if "error" in result:
            self.errors[name] = result["error"]
            return
        metrics: Metrics = result["metrics"]
        self._running.reported(name, metrics)
        self._advance(name, int(metrics["epoch"]))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        run = self._runs[trial.config["run"]]
        self._running.ended(run.name)
        run.folder.output.fetch()
        if run.name in self.errors:
            self._failed(run.name)
        elif run.folder.closed():  # Tune ends those too that Ctrl-C stops
            self._advance(run.name, run.config.training.epochs)  # where patience ended it, none of them is left
            say(_describe(run, self._objective))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = trial.config["run"]
        self.errors[name] = self._failures.read(worker_error(trial)).text
        self._running.ended(name)
        self._failed(name)

    def _advance(self, name: str, epoch: int) -> None:
        new = max(0, epoch - self._done[name])
        self._done[name] += new
        self._bar.advance(new)

    def _failed(self, name: str) -> None:
        self._advance(name, self._runs[name].config.training.epochs)
        say(f"run {name} failed: {error_line(self.errors[name])}")


def _describe(run: SeedRun, objective: SearchMetric) -> str:
    """Return a finished run as one line."""
    history = run.folder.history()
    best, seconds = best_epoch(history, objective.metric), sum(line["seconds"] for line in history)
    return (
        f"run {run.name}: {objective.named(best[objective.metric])} in epoch {best['epoch']:.0f} of"
        f" {len(history)}, {duration(seconds)}; trial {run.trial.number} had {objective.write(run.trial.value or 0.0)}"
    )
