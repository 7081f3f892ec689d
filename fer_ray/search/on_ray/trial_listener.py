"""Listen to the trials of a search on Ray Tune: store results, stop weak trials, show progress."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray import tune as ray_tune

from fer_ray.cluster import connect
from fer_ray.cluster.failures import FailureReader
from fer_ray.cluster.metrics import count_failure, count_images, counter, gauge
from fer_ray.console.progress import ProgressBar, say
from fer_ray.errors import FerRayError
from fer_ray.search.plan import Allocation
from fer_ray.search.stopping import StopRule
from fer_ray.search.study import Candidate, Study
from fer_ray.search.trial_records import TrialRecord, describe, error_line
from fer_ray.search.trial_table import TrialTable
from fer_ray.storage.output import Output
from fer_ray.training.run_folder import METRICS_FILE, RunFolder


class LostError(BaseException):
    """Ray has died. Not an ``Exception``, at which Ray Tune would wait for its actors to end, which are gone."""


class TrialListener(connect.NotPickled, ray_tune.Callback, ray_tune.Stopper):
    """Hears of each trial as callback and stopper of Ray Tune.

    Args:
        study: study of the search.
        rows: number of training images.
        allocation: resources of the trials.
        runs: folder with the training run of each trial.
        on_closed: called after a trial was closed in the study.
        stop_rule: says when the search stops.
        bar: progress bar, with ``table`` as its details.
    """

    def __init__(
        self,
        study: Study,
        rows: int,
        allocation: Allocation,
        runs: Output,
        on_closed: Callable[[], None],
        stop_rule: StopRule,
        bar: ProgressBar,
        table: TrialTable,
    ):
        self._study, self._runs, self._on_closed, self._bar, self._table = study, runs, on_closed, bar, table
        self._rows, self._stop_rule = rows, stop_rule
        self._failures = FailureReader(allocation.concurrent, allocation.resources.get("GPU", 0))
        self._stopped, self._errors = set[int](), dict[int, str]()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        candidate = self._candidate(trial)
        self._table.began(candidate.number, candidate.space, candidate.config.training.epochs)
        gauge("trials_running", "Running trials.").set(len(self._study.running()))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Store a result, and return whether its trial stops here because it is weak."""
        number = result["config"]["number"]
        if result.get("done"):  # at the end of a trial Ray Tune repeats its last result
            return False
        if "error" in result:
            self._errors[number] = result["error"]
            return False
        weak = self._study.report(number, result)
        self._table.reported(number, result)
        self._bar.touch()
        if result["previous"]:
            return False
        count_images("tune", ok=self._rows)
        if weak:
            self._stopped.add(number)
        return weak

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._errors:
            count_failure("tune", "error")
            self._closed(self._study.fail(number, self._errors[number]))
        else:
            self._closed(self._study.prune(number) if number in self._stopped else self._study.complete(number))
        trial.metric_analysis.clear()  # Ray Tune would keep statistics of each metric that nobody reads
        trial.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        failure = self._failures.read(_worker_error(trial))
        count_failure("tune", failure.kind)
        number = trial.config["number"]
        say(
            f"trial {number}: {error_line(failure.text).rstrip('.')}. Restarting after epoch"
            f" {self._study.known_epochs(number)}: failure {trial.num_failures} of {self._study.max_failures} allowed"
            " (training.max_failures)."
        )

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        failure = self._failures.read(_worker_error(trial))
        count_failure("tune", failure.kind)
        text = failure.text
        if self._study.max_failures:
            text += f"\nlost {trial.num_failures} times; training.max_failures = {self._study.max_failures}"
        self._closed(self._study.fail(trial.config["number"], text))

    def stop_all(self) -> bool:
        """Return whether the search ends and its running trials stop."""
        try:
            connect.require_running()
        except FerRayError as error:
            raise LostError from error
        return self._stop_rule.stops_now()

    def close_running(self) -> None:
        """Close the trials that still ran when the search ended.

        At Ctrl-C they are interrupted: a resumed search continues them. At the end of the time budget they are PRUNED:
        samplers learn from them as from any pruned trial.
        """
        first = self._study.strategy.first.metric
        for candidate in self._study.running():  # a process may have stored an epoch that it hasn't reported
            run = RunFolder(self._runs.within(candidate.folder), first)
            run.output.fetch(METRICS_FILE)
            for metrics in run.history():
                self._study.report(candidate.number, metrics)
            run.output.forget()
        if self._stop_rule.is_interrupted:
            self._study.interrupt_running()
        for candidate in self._study.running():
            self._closed(self._study.stop(candidate.number))
        self._on_closed()

    def _closed(self, record: TrialRecord) -> None:
        self._table.ended(record.number)
        self._on_closed()
        best, first = self._study.best(), self._study.strategy.first
        shown = "" if best is None or best.value is None else f"best {first.write(best.value)}"
        self._bar.advance(0 if record.interrupted else 1, shown)
        news = "; the best so far" if best and best.number == record.number else ""
        say(describe(record, self._study.strategy) + news)
        state = "INTERRUPTED" if record.interrupted else record.state
        counter("trials", "Closed trials.", "state").inc(1, {"state": state})
        gauge("trials_running", "Running trials.").set(len(self._study.running()))
        if best and best.value is not None:
            gauge("best_value", "Best value so far.", "objective").set(best.value, {"objective": first.name})

    def _candidate(self, trial: Any) -> Candidate:
        return next(one for one in self._study.running() if one.number == trial.config["number"])


def _worker_error(trial: Any) -> object:
    """Return the exception that ended the process of a failed trial, or the text of Tune's own error."""
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).is_file():
        error = cloudpickle.loads(Path(pickled).read_bytes())
        return getattr(error, "cause", error)
    return Path(text).read_text() if text else "failed without an error"
