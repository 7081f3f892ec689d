"""Ray Tune's schedulers over the share of a trial's own epochs, which stop weak trials early.

Shares, not epochs: spaces differ in length, and a learning rate that falls to 0 makes the same epoch of a shorter run
look better. A trial in its last epoch is never stopped, and what earlier calls of a search have measured counts.

None of them pauses a trial. One that is paused gives up its process, and goes on from a checkpoint of its whole state
later; Ray's own ``HyperBandScheduler`` and ``MedianStoppingRule`` want that as they come.
"""

import math
from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from fer_ray.search.trial_records import TrialRecord

REDUCTION = 3
FIRST_RUNG = 100 / 9
"""A trial goes on only among the best third of those that came as far: at 1/9 and 1/3 of its epochs (percent)."""

BRACKETS = (0, 1, 0, 2, 0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 2, 1)
"""Brackets of Hyperband that trials take in turn. With three of them, ``s`` halvings left out, their shares of the
trials are as 9 : 5 : 3 (Li et al., JMLR 2018, arXiv 1603.06560, algorithm 1 with R = 9 and eta = 3)."""


def make_scheduler(name: str, previous: list[TrialRecord]) -> TrialScheduler:
    """Make a scheduler that starts from what earlier calls have measured.

    It wants results with ``progress`` (percent of a trial's epochs), ``value`` (the first objective in this epoch),
    ``best`` (the same, the best so far) and ``previous`` (whether the trial went on after this epoch, before it was
    interrupted, which no decision can take back), and trials with their ``number`` in the configuration.

    Args:
        name: one of ``fer_ray.search.strategy.SCHEDULERS``.
        previous: finished trials of the study. Those that its present spaces can't draw are left out: by shares of
            epochs, trials are comparable only where a search has chosen their lengths.
    """
    if name == "none":
        return FIFOScheduler()
    kinds: dict[str, Callable[[], TrialScheduler]] = {"asha": _Asha, "hyperband": _Hyperband, "median": _Median}
    scheduler = kinds[name]()
    controller: Any = None  # never looked at
    for record in (record for record in previous if record.state != "FAIL" and not record.is_outside):
        trial: Any = _PreviousTrial(record.number)
        scheduler.on_trial_add(controller, trial)
        for epoch, value in enumerate(record.by_epoch, start=1):
            progress = 100 * epoch / record.config.training.epochs
            result = {"progress": progress, "value": value, "best": max(record.by_epoch[:epoch]), "previous": True}
            scheduler.on_trial_result(controller, trial, result)
    return scheduler


class _PreviousTrial:
    """A trial of an earlier call, as far as a scheduler looks at it."""

    def __init__(self, number: int):
        self.trial_id, self.config = f"previous-{number}", {"number": number}


class _Asha(ASHAScheduler):
    """Asynchronous successive halving (Li et al., arXiv 1810.05934)."""

    def __init__(self, brackets: int = 1):
        super().__init__(
            time_attr="progress",
            metric="best",
            mode="max",
            max_t=100,
            grace_period=FIRST_RUNG,  # type: ignore[arg-type]  # a number of any kind
            reduction_factor=REDUCTION,
            brackets=brackets,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["progress"] >= 100 or "error" in result:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(tune_controller, trial, result))
        return str(TrialScheduler.CONTINUE) if result["previous"] else decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that failed: another one may go on with it, and none is compared with it twice."""
        for _, recorded in self._trial_info.pop(trial.trial_id)._rungs:
            recorded.pop(trial.trial_id, None)


class _Hyperband(_Asha):
    """Asynchronous Hyperband: ASHA in brackets, of which the later ones let trials come farther before they compare.

    A bad start then costs a trial less, at the price of longer bad trials.
    """

    def __init__(self) -> None:
        super().__init__(brackets=3)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # Ray draws the bracket from NumPy's global generator: other ones each time, and for trials of an earlier call.
        super().on_trial_add(tune_controller, trial)
        self._trial_info[trial.trial_id] = self._brackets[BRACKETS[trial.config["number"] % len(BRACKETS)]]


class _Median(MedianStoppingRule):
    """Median stopping (Golovin et al., Google Vizier, KDD 2017, section 3.2.2).

    A trial ends where its best value so far is below the median of the others' means up to the same share of epochs.
    """

    def __init__(self) -> None:
        super().__init__(
            time_attr="progress",
            metric="value",
            mode="max",
            grace_period=FIRST_RUNG,
            min_samples_required=5,
            min_time_slice=math.inf,  # type: ignore[arg-type]  # never pauses, which would lose the trial's epochs
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "error" in result:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(tune_controller, trial, result))
        self._stopped_trials.discard(trial)  # a trial of an earlier call has more results than up to that decision
        return str(TrialScheduler.CONTINUE) if result["progress"] >= 100 or result["previous"] else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Leave out the last result, which Ray's rule would count a second time."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that failed, as ``_Asha`` does."""
        self._results.pop(trial, None)
