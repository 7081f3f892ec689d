"""Listen to the trials of a search on Ray Tune: store results, stop weak trials, show progress."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ray import cloudpickle
from ray import tune as ray_tune

from fer_ray.cluster import connect
from fer_ray.cluster.failures import FailureReader
from fer_ray.cluster.metrics import count_failure, count_images, counter, gauge
from fer_ray.console.progress import ProgressBar, say
from fer_ray.errors import FerRayError
from fer_ray.search.plan import Allocation
from fer_ray.search.study import Study
from fer_ray.search.trial_records import TrialRecord, describe, error_line
from fer_ray.storage.output import Output
from fer_ray.training.run_folder import METRICS_FILE, RunFolder


class LostError(BaseException):
    """Ray has died. Not an ``Exception``, at which Ray Tune would wait for its actors to end, which are gone."""


@dataclass(eq=False)
class TrialListener(connect.NotPickled, ray_tune.Callback, ray_tune.Stopper):
    """Hears of each trial as callback and stopper of Ray Tune, and says when the search stops."""

    study: Study  # study of the search
    trials: int  # number of finished trials in the study at the end
    deadline: float  # end of the time budget, as in ``time.monotonic``
    interrupted: Event  # set at Ctrl-C
    rows: int  # number of training images
    allocation: Allocation  # resources of the trials
    runs: Output  # folder with the training run of each trial
    on_closed: Callable[[], None]  # called after a trial was closed in the study
    bar: ProgressBar  # progress bar of the search

    def __post_init__(self) -> None:
        self._failures = FailureReader(self.allocation.concurrent, self.allocation.resources.get("GPU", 0))
        self._stopped, self._errors = set[int](), dict[int, str]()

    def trials_left(self) -> int:
        """Return how many more trials have to finish. At 0 no trial starts any more."""
        return max(0, self.trials - self.study.counted())

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        gauge("trials_running", "Running trials.").set(len(self.study.running))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Store a result, and return whether its trial stops here because it is weak."""
        number = result["config"]["number"]
        if result.get("done"):  # at the end of a trial Ray Tune repeats its last result
            return False
        if "error" in result:
            self._errors[number] = result["error"]
            return False
        weak = self.study.report(number, result)
        self.bar.touch()
        if result["previous"]:
            return False
        count_images("tune", ok=self.rows)
        if weak:
            self._stopped.add(number)
        return weak

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._errors:
            count_failure("tune", "error")
            record = self.study.fail(number, self._errors[number])
        else:
            record = self.study.prune(number) if number in self._stopped else self.study.complete(number)
        self._closed(record)
        trial.metric_analysis.clear()  # Ray Tune would keep statistics of each metric that nobody reads
        trial.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        number, most = trial.config["number"], self.study.max_failures
        say(
            f"trial {number}: {error_line(self._failure(trial)).rstrip('.')}. Restarting after epoch"
            f" {len(self.study.running[number].by_epoch)}: failure {trial.num_failures} of {most} allowed"
            " (training.max_failures)."
        )

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        text = self._failure(trial)
        if self.study.max_failures:
            text += f"\nlost {trial.num_failures} times; training.max_failures = {self.study.max_failures}"
        self._closed(self.study.fail(trial.config["number"], text))

    def _failure(self, trial: Any) -> str:
        failure = self._failures.read(_worker_error(trial))
        count_failure("tune", failure.kind)
        return failure.text

    def stop_all(self) -> bool:
        """Return whether the search ends and its running trials stop."""
        try:
            connect.require_running()
        except FerRayError as error:
            raise LostError from error
        return self.interrupted.is_set() or time.monotonic() > self.deadline

    def close_running(self) -> None:
        """Close the trials that still ran when the search ended.

        At Ctrl-C they are interrupted: a resumed search continues them. At the end of the time budget they are PRUNED:
        samplers learn from them as from any pruned trial.
        """
        first = self.study.strategy.first.metric
        for trial in list(self.study.running.values()):  # a process may have stored an epoch that it hasn't reported
            run = RunFolder(self.runs.within(trial.folder), first)
            run.output.fetch(METRICS_FILE)
            for metrics in run.history():
                self.study.report(trial.number, metrics)
            run.output.forget()
        if self.interrupted.is_set():
            self.study.interrupt_running()
        for trial in list(self.study.running.values()):
            self._closed(self.study.stop(trial.number))
        self.on_closed()

    def _closed(self, record: TrialRecord) -> None:
        self.on_closed()
        best, first = self.study.best(), self.study.strategy.first
        shown = "" if best is None or best.value is None else f"best {first.write(best.value)}"
        self.bar.advance(0 if record.interrupted else 1, shown)
        news = "; the best so far" if best and best.number == record.number else ""
        say(describe(record, self.study.strategy) + news)
        state = "INTERRUPTED" if record.interrupted else record.state
        counter("trials", "Closed trials.", "state").inc(1, {"state": state})
        gauge("trials_running", "Running trials.").set(len(self.study.running))
        if best and best.value is not None:
            gauge("best_value", "Best value so far.", "objective").set(best.value, {"objective": first.name})


def _worker_error(trial: Any) -> object:
    """Return the exception that ended the process of a failed trial, or the text of Tune's own error."""
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).is_file():
        error = cloudpickle.loads(Path(pickled).read_bytes())
        return getattr(error, "cause", error)
    return Path(text).read_text() if text else "failed without an error"
